"""The zones of the local cloud: one clock, one market, instances that live and die by it, and the journal that bills them.

While a scheduler is connected the clock moves only when it waits, so that no tick passes unseen however loaded the machine
is; while none is, it runs on as a cloud does. It stands still while an instance shuts down, and while one whose cold start
is over is still being made ready: on a compressed clock these real seconds would be hours.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from cloudchamber.core.errors import InputError
from cloudchamber.spot.model import Mode

from .checkpoint import Checkpoint, CheckpointError
from .checkpoints import CheckpointStore
from .instances import Instance, World
from .journal import Journal


class Zones:
    """All zones together. ``changed`` is the one lock; callers of its verbs hold it.

    Parameters
    ----------
    world : World
    folder : Path
        Gets ``journal``, ``clock`` and the instances' directories. Records found there are from an earlier process of this cloud.
    store : CheckpointStore
    """

    def __init__(self, world: World, folder: Path, store: CheckpointStore) -> None:
        self.world, self.folder, self.store = world, folder, store
        self.changed = threading.Condition(threading.RLock())
        self.journal = Journal(folder / "journal")
        self.tick = int((folder / "clock").read_text()) if (folder / "clock").exists() else 0
        self.instances: list[Instance] = []
        self.past = self._close_lost()
        self.newest = store.newest()
        self.is_attended = self.was_attended = self.is_closing = False
        self.wanted: int | None = None
        self.events = self.copies = 0
        self._moved_at = time.monotonic()
        self._unwritten: list[dict[str, Any]] = []

    # -- what a scheduler may ask for ------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Everything a scheduler may know."""
        newest = None if self.newest is None else msgspec.to_builtins(self.newest)
        instances = self.past + [
            [each.number, each.zone, each.mode, each.state, each.launched_tick, each.ended_tick, each.exit_status]
            for each in self.instances
        ]
        return {"tick": self.tick, "events": self.events, "instances": instances, "newest": newest}

    def wait(self, tick: int, events: int) -> dict[str, Any]:
        """Let the clock run until ``tick``, or until something happened since ``events``, but to no moment in between."""
        self.wanted = tick
        self.changed.notify_all()
        self.changed.wait_for(lambda: not self._is_ending() and (self.events != events or (self.tick >= tick and not self._is_late())))
        self.wanted = None
        return self.status()

    def launch(self, zone: int, mode: Mode) -> int | None:
        """Start an instance and return its number; None where there is no spot capacity."""
        if mode == "spot" and not self._is_up(zone):
            return None
        number: int = 1 + sum(record["kind"] == "launch" for record in self.journal.records)
        instance = Instance(self, number, zone, mode, self.tick)
        self.journal.append(kind="launch", instance=number, zone=zone, mode=mode, tick=self.tick)  # billed from here on
        self.instances.append(instance)
        instance.start()
        return number

    def start(self, number: int) -> None:
        """Run the job on an instance, from the newest checkpoint."""
        instance = self._instance(number)
        if instance.state != "waiting":
            return
        if self.newest is not None and self.world.regions[self.newest.zone] != self.world.regions[instance.zone]:
            raise InputError(
                f"the newest checkpoint lies in {self.world.regions[self.newest.zone]}, not in the region of instance "
                f"{number}, {self.world.regions[instance.zone]}; copy it first."
            )
        instance.checkpoint = self.newest
        instance.state = "starting"
        self.changed.notify_all()

    def terminate(self, number: int) -> None:
        """Begin to shut an instance down."""
        self._instance(number).end("released")

    def probe(self, zone: int) -> bool:
        """Whether the zone has spot capacity; if so it is billed."""
        if self._is_up(zone):
            self.journal.append(kind="probe", zone=zone, tick=self.tick)
        return self._is_up(zone)

    def copy(self, zone: int) -> None:
        """Begin to copy the newest checkpoint to the zone's region, unless a copy is under way."""
        if self.newest is not None and not self.copies:
            self.copies += 1
            threading.Thread(target=self._copy, args=(self.newest, zone), daemon=True).start()

    def fetch(self, folder: str) -> bool:
        """Lay the newest checkpoint into a folder of this machine; False if there is none."""
        if self.newest is not None:
            self.store.download(self.newest, Path(folder))
        return self.newest is not None

    def close(self) -> None:
        """Shut everything down and end."""
        self.is_closing = True
        for each in self.instances:
            each.end("released")
        self.changed.wait_for(lambda: not self._is_ending())
        self._write_notes()

    # -- the clock -------------------------------------------------------------------------------------------------

    def run_clock(self) -> None:
        """Move from tick to tick, never faster than real time allows, never over one."""
        with self.changed:
            while not self.is_closing:
                due_s = self._moved_at + self.world.tick_s - time.monotonic()
                if due_s <= 0 and self._may_move():
                    self._move()
                else:
                    self.changed.wait(due_s if due_s > 0 else 1.0)

    def _may_move(self) -> bool:
        if (self.is_attended or not self.was_attended) and (self.wanted is None or self.tick >= self.wanted):
            return False
        return not self._is_ending() and not self._is_late()

    def _move(self) -> None:
        self.tick += 1
        self._moved_at = time.monotonic()
        self._write_clock()
        for each in self.instances:
            if each.mode == "spot" and not self._is_up(each.zone):
                each.end("preempted")
        self._write_notes()
        self.changed.notify_all()

    def _is_up(self, zone: int) -> bool:
        return bool(self.world.available[min(self.tick, len(self.world.available) - 1), zone])

    def _is_ending(self) -> bool:
        return any(each.state == "ending" for each in self.instances)

    def _is_late(self) -> bool:
        """Whether an instance whose cold start is over is still being made ready for its job."""
        return any(each.is_warm and (each.state == "starting" or (each.state == "waiting" and self.copies)) for each in self.instances)

    # -- the rest --------------------------------------------------------------------------------------------------

    def note(self, **record: Any) -> None:
        """Journal what has happened already; if the disk is full, as soon as it is not."""
        with self.changed:
            self._unwritten.append(record)
            self._write_notes()

    def saw(self, what: Checkpoint | Exception) -> None:
        """Learn of a new checkpoint; count a fault."""
        with self.changed:
            if isinstance(what, Exception):
                self.note(kind="fault", fault=type(what).__name__, text=str(what)[:500], tick=self.tick)
            elif self.newest is None or (what.version, what.hops) > (self.newest.version, self.newest.hops):
                self.newest = what

    def recount(self) -> None:
        """Look again which checkpoint is the newest, after one was found damaged."""
        try:
            newest = self.store.newest()
        except CheckpointError as error:
            self.saw(error)
            return
        with self.changed:
            self.newest = newest

    def _copy(self, checkpoint: Checkpoint, zone: int) -> None:
        try:
            is_there = self.store.holds(checkpoint, zone)
            copied = self.store.copy(checkpoint, zone)
        except CheckpointError as error:
            self.saw(error)
        else:
            if not is_there:
                self.note(kind="egress", source=checkpoint.zone, target=zone, bytes=checkpoint.size_bytes, tick=self.tick)
            self.saw(copied)
        with self.changed:
            self.copies -= 1
            self.events += 1
            self.changed.notify_all()

    def _instance(self, number: int) -> Instance:
        for each in self.instances:
            if each.number == number:
                return each
        raise InputError(f"no instance {number} is up; there are {', '.join(str(each.number) for each in self.instances) or 'none'}.")

    def _close_lost(self) -> list[list[Any]]:
        """Every instance of earlier processes; those whose end is not on record are billed to the end of the tick they died in."""
        ends = {record["instance"]: record for record in self.journal.records if record["kind"] == "end"}
        past = []
        for launch in [record for record in self.journal.records if record["kind"] == "launch"]:
            number = launch["instance"]
            if number not in ends:
                ends[number] = {"kind": "end", "instance": number, "tick": self.tick + 1, "fate": "released"}
                self.journal.append(**ends[number])
            past.append([number, launch["zone"], launch["mode"], ends[number]["fate"], launch["tick"], ends[number]["tick"], None])
        return past

    def _write_notes(self) -> None:
        while self._unwritten:
            try:
                self.journal.append(**self._unwritten[0])
            except OSError:  # kept, and tried again at every tick
                return
            del self._unwritten[0]

    def _write_clock(self) -> None:
        try:
            new = self.folder / "clock.new"  # replaced in one step: never half written, whenever this process is killed
            new.write_text(str(self.tick))
            new.replace(self.folder / "clock")
        except OSError as error:
            self.saw(error)
