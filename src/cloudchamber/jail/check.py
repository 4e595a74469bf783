"""Which walls stand on this machine: found out by a policy that runs against each of them."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cloudchamber.core.errors import CandidateError, JailUnavailable

from .launch import Level
from .limits import Limits
from .probe import Prober

ATTEMPTS = {
    "read a file": "reads a file of yours",
    "write a file": "writes outside its own /tmp",
    "see the environment": "sees environment variables, such as keys",
    "see processes": "sees or opens other processes through /proc",
    "connect": "opens network connections",
    "abstract socket": "talks to other programs through abstract sockets",
    "start a process": "starts processes",
    "start a thread": "starts threads",
    "run a program": "replaces itself by another program",
    "signal": "sends signals to other processes",
    "trace": "attaches to other processes (ptrace)",
    "namespace": "makes namespaces of its own, an attack surface of the kernel",
    "memory": "takes more memory than its limit",
    "fill /tmp": "fills the disk",
}
PROBER = """
import ctypes, os, socket, threading

class EveryWall:
    def attempt(self, wall, target):
        try:
            return str(getattr(self, wall.replace(" ", "_").replace("/", ""))(target))
        except BaseException as error:
            return f"stopped: {type(error).__name__}: {error}"
    def read_a_file(self, target):
        with open(target) as file:
            return file.read()
    def write_a_file(self, target):
        with open(target + ".written", "w") as file:
            file.write("written")
        return "written"
    def see_the_environment(self, target):
        return os.environ[target]
    def see_processes(self, target):
        return len(open(f"/proc/{target}/cmdline").read()) or "an empty command line"
    def connect(self, target):
        socket.create_connection(("127.0.0.1", int(target)), 2).close()
        return "connected"
    def abstract_socket(self, target):
        with socket.socket(socket.AF_UNIX) as each:
            each.connect("\\0" + target)
        return "connected"
    def start_a_process(self, target):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        return "started"
    def start_a_thread(self, target):
        threading.Thread(target=int).start()
        return "started"
    def run_a_program(self, target):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(59 if os.uname().machine == "x86_64" else 221, b"/nowhere", None, None) and ctypes.get_errno() == 2:
            return "looked for the program"
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    def signal(self, target):
        os.kill(int(target), 0)
        return "may signal"
    def trace(self, target):
        return self._call("ptrace", 0, 0, 0, 0)  # TRACEME: harmless where it works
    def namespace(self, target):
        return self._call("unshare", 0x10000000)
    def _call(self, name, *arguments):
        libc = ctypes.CDLL(None, use_errno=True)
        if getattr(libc, name)(*arguments) == 0:
            return name + " succeeded"
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    def memory(self, target):
        return len(bytearray(int(target)))
    def fill_tmp(self, target):
        for i in range(64):
            with open(f"{target}.{i}", "wb") as file:
                file.write(bytes(1 << 20))
        return "64 MB written"
"""


@dataclass(frozen=True)
class Wall:
    """One wall at one level: whether it stood, and what the probe met."""

    name: str
    stands: bool
    met: str


@dataclass(frozen=True)
class Check:
    """A level on this machine.

    Parameters
    ----------
    level : str
    problem : str or None
        Why the level is not to be had.
    walls : tuple of Wall
    """

    level: Level
    problem: str | None
    walls: tuple[Wall, ...] = ()

    @property
    def holes(self) -> list[str]:
        """Attempts that got through."""
        return [wall.name for wall in self.walls if not wall.stands]


def stands(level: Level) -> str | None:
    """None if the level starts on this machine, otherwise why not."""
    from .levels import JAILS

    try:
        JAILS[level](libraries=()).load(PROBER, Prober)
    except (JailUnavailable, CandidateError) as error:
        return str(error)
    return None


def check(level: Level) -> Check:
    """Run a policy against every wall of a level.

    Parameters
    ----------
    level : {"namespace", "landlock", "subprocess"}

    Examples
    --------
    >>> found = check("namespace")
    >>> found.problem is not None or found.holes == []
    True
    """
    from .levels import JAILS

    problem = stands(level)
    if problem is not None:
        return Check(level, problem)
    limits = Limits(memory=256 << 20, tmp=8 << 20, call_s=20)
    secret = secrets.token_hex(8)
    abstract = f"chamber-check-{secret}"
    with tempfile.TemporaryDirectory() as folder, socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        file = Path(folder) / "canary"
        file.write_text(secret)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind("\0" + abstract)
        unix.listen()
        os.environ[abstract] = secret
        targets = {
            "read a file": str(file),
            "write a file": str(file),
            "see the environment": abstract,
            "connect": str(tcp.getsockname()[1]),
            "abstract socket": abstract,
            "memory": str(1 << 30),
            "fill /tmp": "/tmp/chamber-check-" + secret,
        }
        try:
            walls = []
            for wall in ATTEMPTS:
                prober = JAILS[level](libraries=()).load(PROBER, Prober, limits=limits)
                try:
                    met = prober.attempt(wall, targets.get(wall, str(os.getpid())))
                except CandidateError as error:
                    met = f"stopped: {error}"
                walls.append(Wall(wall, met.startswith("stopped"), met.removeprefix("stopped: ")))
        finally:
            del os.environ[abstract]
            for each in Path("/tmp").glob(f"chamber-check-{secret}.*"):
                each.unlink()
    return Check(level, None, tuple(walls))
