"""The walls a child puts around itself before it sees a candidate: namespaces, mounts, limits, capabilities, landlock, seccomp.

Runs inside; it needs nothing but libc. Everything raises ``OSError`` where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence

import msgspec

NOBODY = 65534
# user, mount, pid, net, ipc, uts, cgroup
_NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
_CLONE = 56 if os.uname().machine == "x86_64" else 220
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ = 0b1101  # execute, read file, read folder
_LIST = 0b1000  # read folder
_FILE_ONLY = 0b111 | 1 << 14  # what may be granted on a file: execute, write, read, truncate

_HUGE, _MADV_COLLAPSE = 2 << 20, 25

_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock, as a fork must


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
    sparse : bool
        Address space is not limited, for libraries that reserve far more than they use (torch); the zygote looks at resident memory.
    capabilities : bool
        Give up every capability, and the right to gain any.
    landlock : bool
        Read only what ``readable`` names, write only to ``writable``, signal nobody outside.
    seccomp : bytes
        A compiled filter; empty for none.
    readable, listable, writable : tuple of str
        Of ``listable`` folders only the names of what is in them, at any depth.
    """

    namespaces: bool = True
    hidden: tuple[str, ...] = ()
    limits: bool = True
    sparse: bool = False
    capabilities: bool = True
    landlock: bool = True
    seccomp: bytes = b""
    readable: tuple[str, ...] = ()
    listable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()


class Built:
    """What of the walls is the same for every child, made once before it is forked."""

    def __init__(self, walls: Walls) -> None:
        self.walls, self.user = walls, (os.getuid(), os.getgid())
        self.landlock = Landlock(walls) if walls.landlock else None
        self.seccomp = Seccomp(walls.seccomp) if walls.seccomp else None


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def fork_into_namespaces() -> int:
    """Fork a child that is process 1 of new namespaces of every kind: ``unshare`` would need two forks, as it does not move its caller."""
    _python.PyOS_BeforeFork()
    pid = _python.syscall(_CLONE, _NEW_NAMESPACES | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    code = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone: {os.strerror(code)}")
    return int(pid)


def huge_pages() -> None:
    """Gather this process's memory in huge pages where the kernel can: a fork copies a table entry for each page there is."""
    with open("/proc/self/maps") as file:  # noqa: PTH123
        lines = file.readlines()
    for line in lines:
        span, rights, *rest = line.split()
        if rights == "rw-p" and rest[3:] in ([], ["[heap]"]):
            begin, end = (int(each, 16) for each in span.split("-"))
            for at in range(-(-begin // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
                _libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(_HUGE), _MADV_COLLAPSE)  # a wish


def own_user(uid: int, gid: int) -> None:
    """Be that user in the new user namespace: the same as outside, which is all that may be mapped."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        _write(f"/proc/self/{name}", text)


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


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


def limit(cpu_s: float, memory: int | None, file_bytes: int) -> None:
    """Resource limits; ``memory`` is on top of the address space in use now. Where the host runs out of it, this process goes first."""
    used = int(_read("/proc/self/statm").split()[0]) * resource.getpagesize()
    _write("/proc/self/oom_score_adj", "1000")
    seconds = max(1, -int(-cpu_s // 1))
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, resource.RLIM_INFINITY if memory is None else used + memory),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 64),
    ):
        resource.setrlimit(kind, (value, value + (kind == resource.RLIMIT_CPU)))  # SIGXCPU says why; SIGKILL comes where it is ignored


def anonymous_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process that is no file's; 0 if it is gone."""
    try:
        fields = _read(f"/proc/{pid}/statm").split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize()


def drop_capabilities() -> None:
    """No capability is left, and none can be gained."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
    header = struct.pack("<Ii", 0x20080522, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")


def landlock_version() -> int:
    """The kernel's landlock interface; 0 where there is none."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, 0, 1)))


class Landlock:
    """Forbids every path but the named ones, TCP, abstract sockets of others and signals to others.

    Made before the fork: opening the paths is most of the work. ``writable`` ones are opened by the child, which mounts them.
    """

    def __init__(self, walls: Walls) -> None:
        version = landlock_version()
        if version < 1:
            raise OSError(95, "landlock: this kernel has none")
        self._everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
        attributes = struct.pack("<QQQ", self._everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
        self._attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
        self._writable = walls.writable
        self._rules = [*self._opened(walls.readable, _READ), *self._opened(walls.listable, _LIST)]
        self._ruleset = None if walls.writable else self._made(self._rules)
        if self._ruleset is not None:
            for rule in self._rules:
                os.close(struct.unpack("<Qi", rule)[1])

    def _opened(self, paths: Sequence[str], rights: int) -> list[bytes]:
        found = []
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            is_folder = os.path.isdir(path)  # noqa: PTH112 (pathlib is not loaded in the jail's hot path)
            found.append(struct.pack("<Qi", rights if is_folder else rights & _FILE_ONLY & self._everything, fd))
        return found

    def _made(self, rules: Sequence[bytes]) -> int:
        ruleset = _checked(_libc.syscall(_LANDLOCK_CREATE, self._attributes, len(self._attributes), 0), "landlock")
        for rule in rules:
            _checked(_libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), "landlock")
        return ruleset

    def restrict(self) -> None:
        """Restrict this process for good."""
        ruleset = self._ruleset
        if ruleset is None:
            ruleset = self._made([*self._rules, *self._opened(self._writable, self._everything)])
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        _checked(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


class Seccomp:
    """A compiled filter: once installed, only the system calls it names work."""

    def __init__(self, program: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(program, len(program))
        self._program = _Program(len(program) // 8, ctypes.addressof(self._buffer))

    def restrict(self) -> None:
        """Restrict this process for good."""
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        _checked(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(self._program), 0, 0), "seccomp")
