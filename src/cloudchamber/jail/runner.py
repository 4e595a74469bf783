"""Runs one command inside a :class:`cloudchamber.jail.CommandJail`, as process 1 of its namespace. Standard library only.

One descriptor, given as argument: a job comes in (a length, JSON, and the files' bytes), what became of it goes out the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import fnmatch
import json
import os
import resource
import signal
import stat
import struct
import sys
import time
from typing import Any, BinaryIO

WORK = "/tmp/work"


def main() -> None:
    """Serve one job."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")  # where the host runs out of memory, this goes first
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # not dumpable: the command must not reach into this process through /proc
    with os.fdopen(int(sys.argv[1]), "r+b", buffering=0) as channel:
        job = json.loads(_read(channel, struct.unpack("<I", _read(channel, 4))[0]))
        os.mkdir(WORK, 0o700)  # noqa: PTH102 (pathlib would double the start)
        os.chdir(WORK)
        for name, size in job["files"]:
            os.makedirs(os.path.dirname(f"{WORK}/{name}"), exist_ok=True)  # noqa: PTH103, PTH120
            with open(name, "xb", opener=lambda path, flags: os.open(path, flags, 0o755)) as file:
                file.write(_read(channel, size))
        streams = [os.memfd_create(each) for each in ("stdin", "stdout", "stderr")]
        os.write(streams[0], _read(channel, job["stdin"]))
        os.lseek(streams[0], 0, 0)
        ended = _run(job, streams)
        bodies = [_whole(fd, job["output"]) for fd in streams[1:]]
        found = list(_outputs(job["wanted"], job["tmp"]))
        ended |= {"stdout": len(bodies[0]), "stderr": len(bodies[1]), "files": [[name, len(data)] for name, data in found]}
        text = json.dumps(ended).encode()
        _write(channel, b"".join([struct.pack("<I", len(text)), text, *bodies, *(data for _, data in found)]))


def _run(job: dict[str, Any], streams: list[int]) -> dict[str, Any]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    begin = time.monotonic()
    first = os.fork()
    if first == 0:
        _become(job, streams)
    status, is_late = None, False
    while status is None and not is_late:
        pid, ended = os.waitpid(-1, os.WNOHANG)
        if pid == first:
            status = ended
        elif pid == 0:
            is_late = not signal.sigtimedwait([signal.SIGCHLD], max(0.0, begin + job["wall_s"] - time.monotonic()))
    wall_s = time.monotonic() - begin
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = os.waitstatus_to_exitcode(status) if status is not None else -9
    return {"returncode": code, "late": is_late, "wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime}


def _become(job: dict[str, Any], streams: list[int]) -> None:
    """Turn into the command. Never returns."""
    try:
        for target, fd in enumerate(streams):
            os.dup2(fd, target)
        os.closerange(3, 1 << 30)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        for kind, value in (
            (resource.RLIMIT_CPU, job["cpu_s"]),
            (resource.RLIMIT_AS, job["memory"]),
            (resource.RLIMIT_NPROC, job["processes"]),
            (resource.RLIMIT_FSIZE, job["output"]),
            (resource.RLIMIT_NOFILE, 256),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(kind, (value, value + (kind == resource.RLIMIT_CPU)))
        os.execvpe(job["argv"][0], job["argv"], {"PATH": "/usr/bin:/bin", "HOME": WORK, "LC_ALL": "C.UTF-8", "TMPDIR": "/tmp"})
    except BaseException as error:
        os.write(2, f"{job['argv'][0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _outputs(wanted: list[str], limit: int) -> Any:
    """Regular files with wanted names; no link is followed, and nobody is left who could change them meanwhile."""
    left = limit
    for folder, folders, names in os.walk(".", followlinks=False):
        folders.sort()
        for each in sorted(names):
            path = os.path.normpath(os.path.join(folder, each))  # noqa: PTH118
            if not any(fnmatch.fnmatchcase(path, pattern) for pattern in wanted) or not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            size = os.fstat(fd).st_size
            if size <= left and path.isprintable():
                left -= size
                yield path, _whole(fd, size)
            os.close(fd)


def _whole(fd: int, limit: int) -> bytes:
    parts, at = [], 0
    while at < limit and (part := os.pread(fd, min(1 << 20, limit - at), at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _read(channel: BinaryIO, size: int) -> bytes:
    parts = []
    while size:
        part = channel.read(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(channel: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[channel.write(view) :]


if __name__ == "__main__":
    main()
