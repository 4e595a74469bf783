"""Commands you do not trust: files in, files out, no network; for compiled solutions, repositories, judges on stdin and stdout."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from cloudchamber.core.errors import CandidateError, InputError, JailUnavailable

from . import filters, runner
from .launch import bubble
from .limits import Limits
from .memory import ControlGroup, Watch
from .proxy import RING, cleaned
from .stage import interpreter, system_places

GRACE_S = 5.0  # for coming up, and for handing the files back
MAX_FILES = 4096
OVERHEAD = 48 << 20  # bytes of the processes around the command


@dataclass(frozen=True)
class CommandResult:
    """What became of a command; all but the times is untrusted.

    Parameters
    ----------
    returncode : int
        Negative: the signal that ended it.
    stdout, stderr : bytes
    files : mapping of str to bytes
        Those that were asked for and are there.
    cpu_s, wall_s : float
        Processor time of it and all it started; wall time.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    cpu_s: float = 0.0
    wall_s: float = 0.0


class _Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    returncode: int
    late: bool
    wall_s: float
    cpu_s: float
    stdout: int
    stderr: int
    files: list[tuple[str, int]]


class CommandJail:
    r"""Runs a command in bubblewrap: new namespaces, no network, its own files only, system calls that reach the kernel's depths denied.

    What it leaves behind in memory and on disk goes with it.

    Parameters
    ----------
    readable : sequence of paths
        More that it may read, at the same place: a compiler outside ``/usr``, a repository.
    processes : int
        How many it may have at once.

    Raises
    ------
    JailUnavailable
        If bubblewrap or libseccomp is not installed. There is no weaker level.

    Examples
    --------
    >>> done = CommandJail().run(["sh", "-c", "wc -c < in.txt > out.txt"], {"in.txt": b"four"}, outputs=["*.txt"])  # doctest: +SKIP
    >>> done.files["out.txt"]  # doctest: +SKIP
    b'4\n'
    """

    level = "namespace"

    def __init__(self, *, readable: Sequence[str | Path] = (), processes: int = 64) -> None:
        found = shutil.which("bwrap")
        if found is None:
            raise JailUnavailable("bubblewrap is not installed: apt install bubblewrap. Commands are not run without it.")
        missing = [str(each) for each in readable if not Path(each).exists()]
        if missing:
            raise InputError(f"CommandJail: readable names {missing[0]!r}, which is not there.")
        self._bwrap, self._readable, self._processes = found, tuple(str(Path(each).resolve()) for each in readable), processes
        self._filter = filters.deny_list()

    def run(
        self,
        argv: Sequence[str],
        files: Mapping[str, bytes] | None = None,
        *,
        stdin: bytes = b"",
        outputs: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> CommandResult:
        """Run one command in a fresh folder.

        Parameters
        ----------
        argv : sequence of str
        files : mapping of str to bytes
            Relative names; what is put into its folder.
        stdin : bytes
        outputs : sequence of str
            Names or patterns of the files that are to come back; regular files only, ``limits.tmp`` bytes in all.
        limits : Limits
            ``cpu_s`` holds for each of its processes, ``output`` for each file and stream; ``memory`` for each and for all, ``wall_s`` for
            the whole.

        Raises
        ------
        CandidateError
            If it passes the wall limit (``timeout``), all its processes together pass that of memory (``memory``), or its namespace ends
            early (``died``).
        InputError
            For names that leave the folder.
        JailUnavailable
            If the host cannot start the jail.
        """
        limits, files = limits or Limits(), dict(files or {})
        job = self._job(list(argv), files, stdin, list(outputs), limits)
        words = f"all its processes together held more than the limit memory of {limits.memory} bytes"
        ours, theirs = socket.socketpair()
        with ours, tempfile.TemporaryFile() as program, tempfile.TemporaryFile() as errors:
            program.write(self._filter)
            program.seek(0)
            group = self._group(limits)
            with theirs:
                process = self._start(theirs.fileno(), program.fileno(), errors.fileno(), limits, group)
            bound = group or Watch(process.pid, limits.memory + OVERHEAD)
            try:
                text = msgspec.json.encode(job)
                deadline = time.monotonic() + limits.wall_s + GRACE_S
                _send(ours, struct.pack("<I", len(text)) + text + b"".join(files.values()) + stdin, deadline)
                answer = _Answer(ours, deadline)
                ended = msgspec.json.decode(answer.take(_length(answer.take(4), 1 << 20)), type=_Ended)
                stdout, stderr = (answer.take(_length(size, limits.output)) for size in (ended.stdout, ended.stderr))
                back: dict[str, bytes] = {}
                for name, size in ended.files[:MAX_FILES]:
                    back[_inside(name)] = answer.take(_length(size, limits.tmp))
                if bound.is_over:
                    raise CandidateError(words, "memory")
            except TimeoutError:
                raise CandidateError(f"it did not end within the limit wall_s of {limits.wall_s:g} s", "timeout") from None
            except (OSError, EOFError, InputError, msgspec.MsgspecError) as error:
                if bound.is_over:
                    raise CandidateError(words, "memory") from None
                errors.seek(0)
                said = errors.read()[-500:].decode(errors="replace").strip()
                if process.poll() not in (None, 0) and said.startswith(("bwrap", "setpriv", "mount", "unshare")):
                    raise JailUnavailable(f"the command's jail does not start: {said}.") from None
                raise CandidateError(
                    f"its namespace ended before the command did ({type(error).__name__})", "died", cleaned(said)
                ) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait()
                bound.close()
        if ended.late:
            feedback = cleaned((stdout + stderr)[-RING:].decode(errors="replace"))
            raise CandidateError(f"it did not end within the limit wall_s of {limits.wall_s:g} s", "timeout", feedback)
        return CommandResult(ended.returncode, stdout, stderr, back, ended.cpu_s, ended.wall_s)

    def _job(self, argv: list[str], files: dict[str, bytes], stdin: bytes, outputs: list[str], limits: Limits) -> dict[str, object]:
        if not argv or any(not isinstance(each, str) or "\0" in each for each in argv):
            raise InputError(f"CommandJail: argv must be a list of at least one string, got {argv!r}.")
        return {
            "argv": argv,
            "files": [(_inside(name), len(data)) for name, data in files.items()],
            "stdin": len(stdin),
            "wanted": outputs,
            "processes": self._processes,
            "cpu_s": max(1, -int(-limits.cpu_s // 1)),
            "wall_s": limits.wall_s,
            "memory": limits.memory,
            "output": limits.output,
            "tmp": limits.tmp,
        }

    def _group(self, limits: Limits) -> ControlGroup | None:
        """A control group for one run; None where none may be made."""
        try:
            return ControlGroup(limits.memory + limits.tmp + 3 * limits.output + OVERHEAD, self._processes + 8)
        except OSError:
            return None

    def _start(self, channel: int, program: int, errors: int, limits: Limits, group: ControlGroup | None) -> subprocess.Popen[bytes]:
        places = dict.fromkeys(
            [*system_places(), "/usr", *(["/etc/alternatives"] if Path("/etc/alternatives").is_dir() else []), *self._readable]
        )
        binds = [(place, place, False) for place in places if not Path(place).is_symlink()]
        binds.append((runner.__file__, "/runner.py", False))
        command = bubble(self._bwrap, binds, tmp=limits.tmp, links=("/bin", "/sbin", "/lib", "/lib64"), devices=("zero", "urandom"))
        command += ["--seccomp", str(program), "--chdir", "/tmp", str(interpreter()), "-I", "-S", "-B", "/runner.py", str(channel)]
        return subprocess.Popen(
            command if group is None else group.entered(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(channel, program),
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name or str(path) != name:
        raise InputError(f"{name!r} is not the plain relative name of a file.")
    return name


def _length(size: int | bytes, limit: int) -> int:
    found = struct.unpack("<I", size)[0] if isinstance(size, bytes) else size
    if not 0 <= found <= limit:
        raise InputError(f"{found} bytes; at most {limit} are taken.")
    return int(found)


def _send(channel: socket.socket, data: bytes, deadline: float) -> None:
    channel.settimeout(max(0.001, deadline - time.monotonic()))
    channel.sendall(data)


class _Answer:
    """Takes bytes until the deadline."""

    def __init__(self, channel: socket.socket, deadline: float) -> None:
        self._channel, self._deadline = channel, deadline

    def take(self, size: int) -> bytes:
        parts = []
        while size:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            part = self._channel.recv(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
