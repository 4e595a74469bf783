"""The trusted side of a zygote: how one is started at each level, and the trials' children it is asked for."""

from __future__ import annotations

import array
import atexit
import contextlib
import itertools
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NoReturn

import msgspec

from cloudchamber.core.errors import JailUnavailable

from . import filters
from .inside import News, Order, Setup
from .limits import Limits
from .stage import Stage, interpreter, is_public, site_folders, system_places, visible_places
from .walls import NOBODY, Walls, landlock_version

Level = Literal["namespace", "landlock", "subprocess", "none"]
SPARES = 3  # children kept ready: a trial's follows the last at once, and is made while the world runs
START_S = 120.0  # importing numba on a busy machine takes its time
_BOOT = "import sys; sys.path[:0] = sys.argv[2].split(':'); from cloudchamber.jail.inside import main; main()"
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}


class Child:
    """One trial's process as the launcher sees it.

    Parameters
    ----------
    zygote : Zygote
    number : int
    channel, output : socket
        Frames, and what it prints.
    """

    def __init__(self, zygote: Zygote, number: int, channel: socket.socket, output: socket.socket) -> None:
        self._zygote, self._number = zygote, number
        self.channel, self.output = channel, output
        self.pid: int | None = None  # as the zygote counts
        self.ended: News | None = None

    def end(self, wait_s: float = 10.0) -> News | None:
        """Kill it, and return how it had ended if that is known within the time.

        Raises
        ------
        JailUnavailable
            If it was the zygote that ended, or never made it.
        """
        self.channel.close()
        self.output.close()
        if self.ended is None:
            self._zygote.order(Order("kill", self._number))
            self._zygote.listen(wait_s, until=self)
        return self.ended

    def release(self) -> None:
        """Kill it without waiting."""
        with contextlib.suppress(JailUnavailable):
            if self.ended is None:
                self._zygote.order(Order("kill", self._number))
        self.channel.close()
        self.output.close()


class Zygote:
    """A warm interpreter with the Protocol's libraries and policies loaded, from which children are forked.

    Parameters
    ----------
    level : {"namespace", "landlock", "subprocess"}
    stage : Stage
    change : callable, optional
        Takes walls away from every child, to find out which of them stops what.

    Raises
    ------
    JailUnavailable
        If it does not start.
    """

    def __init__(self, level: Level, stage: Stage, change: Callable[[Walls], Walls] | None = None) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._children: dict[int, Child] = {}
        self._numbers = itertools.count(1)
        self._asked: Limits | None = None
        self._spares: deque[Child] = deque()
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._said = ""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.is_warm = False
        command, setup = (_namespace_command if level == "namespace" else _plain_command)(level, stage, theirs.fileno())
        if change is not None:
            setup = msgspec.structs.replace(setup, walls=change(setup.walls))
        environment = _ENVIRONMENT | {"NUMBA_CACHE_DIR": "/kernels" if level == "namespace" else str(_kernels(stage, os.geteuid()))}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(theirs.fileno(),),
                env=environment,
                cwd="/",
            )
        except OSError as error:
            raise JailUnavailable(f"the jail cannot start {command[0]}: {error}.") from None
        finally:
            theirs.close()
        atexit.register(self.close)
        try:
            self._control.send(msgspec.msgpack.encode(setup))
        except OSError:
            self._fail("it ended at once")
        try:
            first = self._news(START_S)
        except JailUnavailable:
            self._fail("it ended before it was ready")
        if first is None or first.kind != "ready":
            self._fail(first.error if first is not None else f"nothing within {START_S:.0f} s")

    def _fail(self, why: str) -> NoReturn:
        self.close()
        raise JailUnavailable(
            f"the jail's zygote does not start: {why}{f' ({self._said})' if self._said else ''}. "
            "`chamber jail check` says which walls stand here."
        )

    def spawn(self, limits: Limits) -> Child:
        """Ask for a child; from the second with the same limits on, the next ones are made ready meanwhile.

        Raises
        ------
        JailUnavailable
            If the zygote is gone.
        """
        self.listen(0)
        with self._turn:
            is_again, self._asked = self._asked == limits, limits
            if not is_again or any(each.ended is not None for each in self._spares):
                self._drop_spares()
            child = self._spares.popleft() if self._spares else self._ask("spawn", limits)
            while is_again and len(self._spares) < SPARES:
                self._spares.append(self._ask("spawn", limits))
            return child

    def _drop_spares(self) -> None:
        while self._spares:
            self._spares.pop().release()

    def warm(self) -> Child:
        """Talk to the zygote itself, to run the package's own policies once so that children inherit what they compile."""
        self._drop_spares()  # they were forked before, and would lack what is compiled now
        return self._ask("warm", None)

    def _ask(self, kind: str, limits: Limits | None) -> Child:
        number = next(self._numbers)
        pairs = socket.socketpair(), socket.socketpair()
        child = Child(self, number, pairs[0][0], pairs[1][0])
        if kind == "spawn":
            self._children[number] = child
        try:
            rights = array.array("i", [pair[1].fileno() for pair in pairs])
            self.order(Order(kind, number, limits), [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            for pair in pairs:
                pair[1].close()
        child.output.setblocking(False)
        return child

    def order(self, order: Order, ancillary: list[tuple[int, int, array.array[int]]] | None = None) -> None:
        """Send an order."""
        try:
            self._control.sendmsg([msgspec.msgpack.encode(order)], ancillary or [])
        except OSError as error:
            raise JailUnavailable(f"the jail's zygote is gone ({error}).") from None

    def listen(self, wait_s: float, until: Child | None = None) -> None:
        """Take in news; wait for the end of a child if one is given.

        Raises
        ------
        JailUnavailable
            If the zygote is gone, or could not make the child.
        """
        deadline = time.monotonic() + wait_s
        while until is None or until.ended is None:
            with self._lock:  # several threads may wait, each for its own child: whoever listens takes in the news of all
                if until is not None and until.ended is not None:
                    return
                news = self._news(max(0.0, deadline - time.monotonic()))
                if news is None:
                    return
                child = self._children.get(news.child)
                if child is None:
                    continue
                if news.kind == "started":
                    child.pid = news.pid
                else:
                    del self._children[news.child]
                    child.ended = news
            if news.kind == "failed" and child is until:
                raise JailUnavailable(f"the host could not make a jailed process: {news.error}.")

    def _news(self, wait_s: float) -> News | None:
        poll = select.poll()  # select() would refuse descriptors above 1023
        try:
            poll.register(self._control, select.POLLIN)
            if not poll.poll(wait_s * 1000):
                return None
            data = self._control.recv(1 << 16)
        except (OSError, ValueError):
            data = b""
        if not data:
            self.close()
            raise JailUnavailable("the jail's zygote died.")
        return msgspec.msgpack.decode(data, type=News)

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return self._control.fileno() >= 0 and self._process.poll() is None

    def forget(self) -> None:
        """Let go of it, in a process that was forked from its owner."""
        atexit.unregister(self.close)
        self._control.close()

    def close(self) -> None:
        """End it and all its children."""
        atexit.unregister(self.close)
        self._control.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._errors.closed:
            self._errors.seek(0)
            self._said = self._errors.read()[-1500:].decode(errors="replace").strip()
            self._errors.close()


def is_sparse(stage: Stage) -> bool:
    """Whether a library reserves so much address space that a limit on it would have to be out of all proportion."""
    return "torch" in stage.libraries


def _boot(paths: list[str], control: int) -> list[str]:
    return [str(interpreter()), "-S", "-s", "-P", "-B", "-c", _BOOT, str(control), ":".join(paths)]


def _plain_command(level: Level, stage: Stage, control: int) -> tuple[list[str], Setup]:
    is_landlock = level == "landlock"
    if is_landlock and landlock_version() < 1:
        raise JailUnavailable("this kernel has no landlock; install bubblewrap for the level 'namespace', or name a weaker level.")
    library = str(stage.folder / "lib")
    readable, listable = visible_places()
    readable = (*readable, library, *map(str, stage.places), "/dev/null", "/dev/urandom")
    walls = Walls(
        namespaces=False,
        capabilities=is_landlock,
        landlock=is_landlock,
        sparse=is_sparse(stage),
        seccomp=filters.program() if is_landlock else b"",
        readable=readable,
        listable=listable,
    )
    paths = [library, *dict.fromkeys(str(place.parent) for place in stage.places)]
    return _boot(paths, control), Setup(stage.protocol, stage.libraries, stage.modules, walls)


def _namespace_command(level: Level, stage: Stage, control: int) -> tuple[list[str], Setup]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise JailUnavailable("bubblewrap is not installed: apt install bubblewrap (or use the level 'landlock').")
    binds = list(_binds(stage))
    system = [inner for _, inner, _ in binds if inner not in ("/kernels",) and not inner.startswith("/site/")]
    readable = (*system, "/lib", "/lib64", "/site", "/dev/null")
    walls = Walls(
        hidden=("/proc", "/kernels"),
        landlock=landlock_version() > 0,
        sparse=is_sparse(stage),
        seccomp=filters.program(),
        readable=readable,
        writable=("/tmp",),
    )
    setup = Setup(stage.protocol, stage.libraries, stage.modules, walls)
    return [*bubble(bwrap, binds, tmp=256 << 20), "--chdir", "/tmp", *_boot(["/chamber", "/site"], control)], setup


def bubble(
    bwrap: str, binds: list[tuple[str, str, bool]], tmp: int, links: Sequence[str] = ("/lib", "/lib64"), devices: Sequence[str] = ()
) -> list[str]:
    """The start of a command line: new namespaces, nobody in them, and only what is bound; ``/tmp`` of that many bytes."""
    prologue: list[str] = []
    if os.geteuid() == 0:  # root inside would be root outside: become nobody first, after showing nobody what lies in private homes
        prologue, binds = _as_nobody(binds)
    command = [*prologue, bwrap, "--unshare-all", "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "chamber"]
    command += ["--as-pid-1", "--new-session", "--proc", "/proc", "--dir", "/dev", "--size", str(tmp), "--tmpfs", "/tmp"]
    for device in ("null", *devices):
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for link in links:
        if Path(link).is_symlink():
            command += ["--symlink", str(Path(link).readlink()), link]
    for outer, inner, is_writable in binds:
        command += ["--bind" if is_writable else "--ro-bind", outer, inner]
    for folder in site_folders():  # what is installed there is not for candidates; declared libraries lie below /site
        if any(Path(folder).is_relative_to(inner) for _, inner, _ in binds):
            command += ["--size", "4096", "--tmpfs", folder]
    return [*command, "--remount-ro", "/"]


def _kernels(stage: Stage, uid: int) -> Path:
    """The folder in which a zygote of that user keeps compiled kernels: they are code, so nobody else may write there."""
    folder = stage.folder / f"kernels-{uid}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != uid:
        os.chown(folder, uid, uid)
    return folder


def _binds(stage: Stage) -> Iterator[tuple[str, str, bool]]:
    """(outside, inside, writable) of everything a namespace jail sees."""
    for place in system_places():
        if not Path(place).is_symlink():
            yield place, place, False
    yield str(stage.folder / "lib"), "/chamber", False
    yield str(_kernels(stage, NOBODY if os.geteuid() == 0 else os.geteuid())), "/kernels", True
    for each in stage.places:
        yield str(each), f"/site/{each.name}", False


def _as_nobody(binds: list[tuple[str, str, bool]]) -> tuple[list[str], list[tuple[str, str, bool]]]:
    """Commands that become nobody before bubblewrap starts; what nobody may not reach is shown below /mnt, in a private mount namespace."""
    setpriv = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs", "--"]
    hidden = [i for i, (outer, _, _) in enumerate(binds) if not is_public(Path(outer))]
    if not hidden:
        return setpriv, binds
    script = ["set -e", "mount -t tmpfs -o mode=755 chamber /mnt"]
    arguments, moved = [], list(binds)
    for number, i in enumerate(hidden, start=1):
        outer, inner, is_writable = binds[i]
        target = f"/mnt/{number}"
        script.append(f'{"mkdir" if Path(outer).is_dir() else "touch"} {target}; mount --bind "${{{number}}}" {target}')
        arguments.append(outer)
        moved[i] = (target, inner, is_writable)
    script.append(f'shift {len(hidden)}; exec "$@"')
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script), "sh", *arguments, *setpriv], moved


_pool: dict[tuple[str, Stage], Zygote] = {}
_starting = threading.RLock()


def zygote(level: Level, stage: Stage) -> Zygote:
    """The process's zygote for a level and Protocol, started at first use and again if it died."""
    with _starting:
        found = _pool.get((level, stage))
        if found is not None and not found.is_alive:
            found.close()
            found = None
        if found is None:
            found = _pool[level, stage] = Zygote(level, stage)
        return found


def _forget() -> None:
    for each in _pool.values():
        each.forget()
    _pool.clear()


os.register_at_fork(after_in_child=_forget)
