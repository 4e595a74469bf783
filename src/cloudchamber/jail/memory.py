"""The memory of a whole tree of processes: bounded by a control group where one may be made, looked at again and again where not."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

EVERY_S = 0.02
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'


class ControlGroup:
    """A control group of its own below that of this process (version 1 or 2 of the kernel's interface).

    Parameters
    ----------
    memory, processes : int
        Bytes, those of files in ``/tmp`` included, and processes, of all that is in it.

    Raises
    ------
    OSError
        If this process may not make one.
    """

    def __init__(self, memory: int, processes: int) -> None:
        self._folders: list[Path] = []
        name, homes = f"chamber-{os.getpid()}-{secrets.token_hex(4)}", _homes()
        try:
            if "" in homes and "memory" in (homes[""] / "cgroup.controllers").read_text().split():
                folder = self._made(homes[""] / name)
                settings = {"memory.max": memory, "memory.swap.max": 0, "pids.max": processes}
                self._events = folder / "memory.events"
                for key, value in settings.items():
                    (folder / key).write_text(str(value))
            else:
                folder = self._made(_home_of(homes, "memory") / name)
                (folder / "memory.limit_in_bytes").write_text(str(memory))
                self._events = folder / "memory.oom_control"
                folder = self._made(_home_of(homes, "pids") / name)
                (folder / "pids.max").write_text(str(processes))
        except BaseException:
            self.close()
            raise

    def _made(self, folder: Path) -> Path:
        folder.mkdir()
        self._folders.append(folder)
        return folder

    def entered(self, command: list[str]) -> list[str]:
        """The command line that enters the group and then runs a command."""
        return ["sh", "-c", _ENTER, "sh", *(str(folder / "cgroup.procs") for folder in self._folders), "--", *command]

    @property
    def is_over(self) -> bool:
        """Whether the kernel had to kill for memory."""
        counts = dict(line.split() for line in self._events.read_text().splitlines())
        return int(counts.get("oom_kill", 0)) > 0

    def close(self) -> None:
        """Remove it; what was in it must have ended."""
        for folder in self._folders:
            for _ in range(50):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.01)  # the last process is on its way out


class Watch:
    """Looks at a tree of processes every 20 ms, and kills it once it holds too much memory: what is left without a control group.

    Parameters
    ----------
    pid : int
        The first process, leader of its group.
    memory : int
        Bytes of anonymous memory of all.
    """

    def __init__(self, pid: int, memory: int) -> None:
        self.is_over = False
        self._pid, self._memory, self._is_done = pid, memory, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._is_done.wait(EVERY_S):
            if sum(map(anonymous_bytes, tree(self._pid))) > self._memory:
                self.is_over = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._pid, 9)
                return

    def close(self) -> None:
        """Stop looking."""
        self._is_done.set()
        self._thread.join()


def tree(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def anonymous_bytes(pid: int) -> int:
    """Memory of one process that is no file's; what forks share is divided among them where the kernel tells."""
    try:
        with contextlib.suppress(PermissionError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon")) * 1024
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGESIZE")
    except OSError:  # it is gone
        return 0


def _homes() -> dict[str, Path]:
    """Folder of this process's group by controller of version 1; that of version 2 under the empty name."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            for name in [""] if kind == "cgroup2" else options.split(","):
                mounts[name] = root, point
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, place = line.split(":", 2)
        for name in names.split(","):
            if name in mounts:
                root, point = mounts[name]
                found[name] = Path(point) / os.path.relpath(place, root)
    return found


def _home_of(homes: dict[str, Path], controller: str) -> Path:
    if controller not in homes:
        raise FileNotFoundError(f"there is no {controller} control group")
    return homes[controller]


def how_bounded() -> str:
    """How the memory of jailed processes is bounded on this machine, in words."""
    try:
        ControlGroup(1 << 30, 64).close()
        commands = "a control group bounds each command and all it starts"
    except OSError as error:
        commands = f"no control group may be made ({error.strerror or error}), so the memory of a command and all it starts is looked at"
    return f"policies: address space; with torch, resident memory looked at every {EVERY_S * 1e3:.0f} ms. Commands: {commands}."
