"""What runs on the far side: the zygote, which imports everything once, and its children, one throw-away process per trial.

The zygote never runs a candidate's code. It takes orders on one socket: ``spawn`` (with the two descriptors of a child) and
``kill``; it tells which children started, which could not, and how each ended.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from importlib import import_module
from typing import Any

import msgspec

from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.messages import encode
from cloudchamber.core.source import make_policy

from . import walls as building
from .limits import Limits
from .walls import Built, Walls
from .wire import BATCH, HEADER, LOAD, OK, RAISED, Contract, Load, Raised, frame

CONTROL = 3
LOOK_MS = 20


class Setup(msgspec.Struct, frozen=True):
    """What a zygote is told at its start."""

    protocol: str
    libraries: tuple[str, ...]
    modules: tuple[str, ...]
    walls: Walls


class Order(msgspec.Struct, frozen=True):
    """``spawn``, ``warm`` or ``kill`` the child of that number."""

    kind: str
    child: int
    limits: Limits | None = None


class News(msgspec.Struct, frozen=True):
    """``ready``, ``failed`` (the host's fault), or ``ended`` with status and processor seconds, and ``error``: for what it was killed."""

    kind: str
    child: int = 0
    pid: int = 0
    status: int = 0
    cpu_s: float = 0.0
    max_rss: int = 0
    error: str = ""


def main() -> None:
    """Be the zygote until the launcher closes the socket whose descriptor is the first argument."""
    if int(sys.argv[1]) != CONTROL:
        os.dup2(int(sys.argv[1]), CONTROL)
        os.close(int(sys.argv[1]))
    control = socket.socket(fileno=CONTROL)
    setup = msgspec.msgpack.decode(control.recv(1 << 20), type=Setup)
    try:
        for name in (*setup.libraries, *setup.modules):
            import_module(name)
        module, _, qualified = setup.protocol.partition(":")
        protocol: Any = import_module(module)
        for part in qualified.split("."):
            protocol = getattr(protocol, part)
        contract = Contract(protocol)
    except Exception as error:
        _tell(control, News("failed", error=f"{type(error).__name__}: {error}"))
        return
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 (for the children)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    gc.collect()
    gc.freeze()  # children share these pages until they write to them
    building.huge_pages()
    zygote = Zygote(control, setup, contract)
    _tell(control, News("ready", pid=os.getpid()))
    zygote.run()


def _tell(control: socket.socket, news: News) -> None:
    control.send(msgspec.msgpack.encode(news))


class Zygote:
    """Forks a child per trial and reaps it."""

    def __init__(self, control: socket.socket, setup: Setup, contract: Contract) -> None:
        self._control, self._contract = control, contract
        self._built = Built(setup.walls)
        self._pids: dict[int, int] = {}  # child number -> pid
        self._ends: dict[int, int] = {}  # pidfd -> child number
        self._most: dict[int, int] = {}  # child number -> anonymous bytes it may hold; where no limit of the kernel's does that
        self._over: set[int] = set()
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Serve orders until the socket closes."""
        while True:
            found = self._poll.poll(LOOK_MS if self._most else None)
            self._look()
            for fd, _ in found:
                if fd != self._control.fileno():
                    self._reap(fd)
                elif not self._obey():
                    for pid in self._pids.values():
                        _kill(pid)
                    return

    def _look(self) -> None:
        for child, most in list(self._most.items()):
            if building.anonymous_bytes(self._pids[child]) > most:
                del self._most[child]
                self._over.add(child)
                _kill(self._pids[child])

    def _obey(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(1 << 16, socket.CMSG_SPACE(8))
        if not data:
            return False
        order = msgspec.msgpack.decode(data, type=Order)
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        if order.kind == "kill":
            if order.child in self._pids:
                _kill(self._pids[order.child])
        elif order.kind == "warm":  # the package's own policies only: what they compile here, every child inherits
            serve(fds[0], self._contract)
            for fd in fds:
                os.close(fd)
        else:
            self._spawn(order, fds)
        return True

    def _spawn(self, order: Order, fds: array.array[int]) -> None:
        try:
            pid = self._fork(order, fds)
        except OSError as error:
            _tell(self._control, News("failed", order.child, error=str(error)))
        else:
            self._pids[order.child] = pid
            if self._built.walls.sparse and order.limits is not None:
                self._most[order.child] = building.anonymous_bytes() + order.limits.memory
            end = os.pidfd_open(pid)
            self._ends[end] = order.child
            self._poll.register(end, select.POLLIN)
            _tell(self._control, News("started", order.child, pid))
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, order: Order, fds: array.array[int]) -> int:
        assert order.limits is not None
        pid = building.fork_into_namespaces() if self._built.walls.namespaces else os.fork()
        if pid == 0:
            _child(self._built, self._contract, order.limits, fds)
        return pid

    def _reap(self, end: int) -> None:
        child = self._ends.pop(end)
        pid, status, used = os.wait4(self._pids.pop(child), 0)
        self._most.pop(child, None)
        error = "memory" if child in self._over else ""
        self._over.discard(child)
        self._poll.unregister(end)
        os.close(end)
        _tell(self._control, News("ended", child, pid, status, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, error))


def _kill(pid: int) -> None:
    """Kill a child, and what it may have started where no wall keeps it from that."""
    with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def _save_nothing(cache: Any, sig: Any, data: Any) -> None:
    """In place of numba's own: the kernels' folder cannot be written from a child."""


def _child(built: Built, contract: Contract, limits: Limits, fds: array.array[int]) -> None:
    """Wall oneself in, then serve. Never returns."""
    try:
        channel, output = fds
        walls = built.walls
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(channel, CONTROL)  # takes the zygote's own socket away from the child
        os.setsid()
        if walls.namespaces:
            building.own_user(*built.user)
        else:
            building.die_with_parent()  # within namespaces the zygote is pid 1, and nothing outlives it
        if walls.limits:
            building.limit(limits.cpu_s, None if walls.sparse else limits.memory, limits.tmp)
        if walls.namespaces:
            building.fresh_mounts(limits.tmp, walls.hidden)
        if "numpy" in sys.modules:  # the generators of the zygote must not be those of all its children; `random` sees to itself
            sys.modules["numpy"].random.seed(int.from_bytes(os.urandom(4), "little"))
        if walls.capabilities:
            building.drop_capabilities()
        if built.landlock is not None:
            built.landlock.restrict()
        os.closerange(4, 1 << 30)
        if built.seccomp is not None:
            built.seccomp.restrict()
        if "numba" in sys.modules:
            numba = sys.modules["numba"]
            numba.core.caching.Cache.save_overload = _save_nothing  # what a child compiles dies with it
            if walls.namespaces:
                numba.core.config.CACHE_DIR = "/tmp"
    except BaseException as error:
        os.write(CONTROL, frame(0, RAISED, encode(Raised("host", f"{type(error).__name__}: {error}"))))
        os._exit(70)
    try:
        os.write(CONTROL, frame(0, OK, b""))  # the walls stand: from here on a fault is the candidate's
        serve(CONTROL, contract)
    finally:
        os._exit(0)


def serve(fd: int, contract: Contract) -> None:
    """Answer requests until the other side closes: the policy's whole life."""
    policy: Any = None
    receive = _Receiver(fd)
    while True:
        request = receive()
        if request is None:
            return
        ticket, kind, body = request
        try:
            if kind == LOAD:
                load = msgspec.msgpack.decode(body, type=Load)
                policy = make_policy(load.source, contract.verbs, load.name, load.path)
                verbs = [getattr(policy, verb) for verb in contract.verbs]
                answer = b""
            elif kind & BATCH:
                verb = verbs[kind ^ BATCH]
                answer = _encoded([ask(verb, *args) for args in contract.unpack(kind, body)])
            else:
                answer = _encoded(ask(verbs[kind], *contract.unpack(kind, body)))
            _write(fd, frame(ticket, OK, answer))
        except BaseException as error:
            _write(fd, frame(ticket, RAISED, encode(_words(error))))


def _encoded(result: Any) -> bytes:
    try:
        return encode(result)
    except (InputError, NotImplementedError, TypeError, OverflowError, ValueError) as error:
        raise CandidateError(f"the answer, a {type(result).__name__}, cannot be sent: {error}", "type") from None


def _words(error: BaseException) -> Raised:
    if isinstance(error, CandidateError):
        cause = error.__cause__
        detail = "" if cause is None else "".join(traceback.format_exception(cause, limit=-6))
        kind = "memory" if isinstance(cause, MemoryError) else error.kind
        return Raised(kind, str(error)[:2000], detail[-3000:])
    kind = "input" if isinstance(error, InputError) else "memory" if isinstance(error, MemoryError) else "crash"
    return Raised(kind, (str(error) if kind == "input" else f"{type(error).__name__}: {error}")[:2000])


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Receiver:
    """Reads frames; most arrive in one read."""

    def __init__(self, fd: int) -> None:
        self._fd, self._left = fd, b""

    def __call__(self) -> tuple[int, int, bytes] | None:
        data, self._left = self._left, b""
        need = HEADER.size
        while True:
            if len(data) >= need:
                length, ticket, kind = HEADER.unpack_from(data)
                need = HEADER.size + length
                if len(data) >= need:
                    self._left = data[need:]
                    return ticket, kind, data[HEADER.size : need]
            more = os.read(self._fd, max(16384, need - len(data)))
            if not more:
                return None
            data = data + more if data else more


if __name__ == "__main__":
    main()
