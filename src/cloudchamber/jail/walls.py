"""The walls a child puts around itself before it sees a candidate: namespaces, mounts, limits, capabilities, landlock, seccomp.

Runs inside; it needs nothing but libc. Everything raises ``OSError`` where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Sequence

import msgspec

NOBODY = 65534
_CLONE = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ = 0b1101  # execute, read file, read folder
_FILE_ONLY = 0b111 | 1 << 14  # what may be granted on a file: execute, write, read, truncate

_libc = ctypes.CDLL(None, use_errno=True)


class Walls(msgspec.Struct, frozen=True):
    """Which walls a child puts up.

    Parameters
    ----------
    namespaces : bool
        New namespaces, and a fresh ``/tmp``.
    hidden : tuple of str
        Folders to cover with an empty one, ``/proc`` among them; needs ``namespaces``.
    limits : bool
        Resource limits.
    capabilities : bool
        Give up every capability, and the right to gain any.
    landlock : bool
        Read only what ``readable`` names, write only to ``writable``, signal nobody outside.
    seccomp : bytes
        A compiled filter; empty for none.
    readable, writable : tuple of str
    """

    namespaces: bool = True
    hidden: tuple[str, ...] = ()
    limits: bool = True
    capabilities: bool = True
    landlock: bool = True
    seccomp: bytes = b""
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def new_namespaces() -> None:
    """Enter new namespaces of every kind; the next fork is pid 1 of its own."""
    uid, gid = os.getuid(), os.getgid()
    flags = 0
    for bit in _CLONE.values():
        flags |= bit
    _checked(_libc.unshare(flags), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 (pathlib is not loaded in the jail's hot path)
            file.write(text)


def fresh_mounts(tmp_bytes: int, hidden: Sequence[str]) -> None:
    """A new ``/tmp`` of limited size, and nothing behind ``hidden`` folders (``/proc`` among them)."""
    options = f"size={tmp_bytes},nr_inodes=1024,mode=0700".encode()
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _checked(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", flags, options), "mount /tmp")
    for folder in hidden:
        _checked(_libc.mount(b"tmpfs", folder.encode(), b"tmpfs", flags | _MS_RDONLY, b"size=4096,nr_inodes=2"), f"mount {folder}")
    os.chdir("/tmp")


def die_with_parent() -> None:
    """Be killed when the zygote dies; not to be undone once seccomp stands."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")


def limit(cpu_s: float, memory: int, file_bytes: int) -> None:
    """Resource limits; ``memory`` is on top of the address space in use now. Where the host runs out of it, this process goes first."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()
    with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")
    seconds = max(1, -int(-cpu_s // 1))
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 64),
    ):
        resource.setrlimit(kind, (value, value + (kind == resource.RLIMIT_CPU)))  # SIGXCPU says why; SIGKILL comes where it is ignored


def drop_capabilities() -> None:
    """No capability is left, and none can be gained."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
    header = struct.pack("<Ii", 0x20080522, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")


def landlock_version() -> int:
    """The kernel's landlock interface; 0 where there is none."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, 0, 1)))


def landlock(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Forbid every path but these, TCP, abstract sockets of others and signals to others."""
    version = landlock_version()
    if version < 1:
        raise OSError(95, "landlock: this kernel has none")
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = struct.pack("<QQQ", everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _checked(_libc.syscall(_LANDLOCK_CREATE, attributes[:size], size, 0), "landlock")
    for allowed, paths in ((_READ, readable), (everything, writable)):
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            rights = allowed if os.path.isdir(path) else allowed & _FILE_ONLY & everything  # noqa: PTH112
            _checked(_libc.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("<Qi", rights, fd), 0), f"landlock {path}")
            os.close(fd)
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _checked(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)


def seccomp(program: bytes) -> None:
    """Install a compiled filter; from here on only the system calls it names work."""
    buffer = ctypes.create_string_buffer(program, len(program))

    class _Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    wanted = _Program(len(program) // 8, ctypes.addressof(buffer))
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _checked(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(wanted), 0, 0), "seccomp")
