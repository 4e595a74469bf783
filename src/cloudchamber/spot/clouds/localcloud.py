"""A cloud on this machine: real processes, real signals, real object storage, at compressed time.

A spot instance is a child process that gets SIGTERM, and after a grace SIGKILL, when its zone's availability in the market
ends. Cold starts are waited for. Checkpoints live in one S3 bucket per region. All of it belongs to a process of its own
(``supervisor``), which a scheduler's death does not touch.
"""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import decode, encode
from cloudchamber.spot.cloud import CloudError, CloudStatus, InstanceStatus
from cloudchamber.spot.market import Market
from cloudchamber.spot.model import Mode, SpotSpec

from .instances import World
from .journal import read_journal
from .supervisor import LOCKED

_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Pace:
    """How time passes in a local cloud.

    Parameters
    ----------
    speedup : float, default 600
        Seconds of the market per real second.
    upload_every_s : float or None, default None
        Seconds of the market between uploads of the checkpoint; None: one tick.
    grace_s : float, default 5
        Real seconds from SIGTERM to SIGKILL; the market's clock stands still meanwhile.
    linger_s : float, default 600
        Real seconds for which the cloud goes on when its scheduler is gone.
    """

    speedup: float = 600.0
    upload_every_s: float | None = None
    grace_s: float = 5.0
    linger_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("speedup", "grace_s", "linger_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)!r}.")


class LocalCloud:
    """A :class:`CloudAdapter` on this machine (POSIX; Linux for reaping what a killed supervisor leaves behind).

    Use it as a context manager, or call :meth:`open` and :meth:`close`. A folder that has a cloud already is connected to.

    Parameters
    ----------
    market : Market
        After its last row it stays as it is.
    spec : SpotSpec
        Gives the cold start, the price of a copy and of a probe.
    command : tuple of str
        The job. It keeps its state in ``$CHAMBER_CHECKPOINT_DIR``, valid at any moment at which it may be killed, and writes
        the finished share of its work, 0 to 1, to ``progress`` there.
    folder : Path
        The cloud's state: journal, instances with their logs.
    pace : Pace, optional
    endpoint_url : str or None, default None
        An S3 service for the checkpoints, with credentials as boto3 finds them. None starts moto's, whose contents last as
        long as the cloud's process; when that is closed the newest checkpoint is saved to the folder.

    Raises
    ------
    InputError
        If the spec's tick is not the market's, or the folder is the cloud of another job.
    """

    def __init__(
        self,
        market: Market,
        spec: SpotSpec,
        command: tuple[str, ...],
        folder: Path,
        *,
        pace: Pace = Pace(),
        endpoint_url: str | None = None,
    ) -> None:
        if abs(market.tick_s - spec.tick_s) > 1e-9 or len(market.zones) != len(spec.zones):
            raise InputError(
                f"market and spec must agree, got ticks of {market.tick_s:g} and {spec.tick_s:g} s, "
                f"{len(market.zones)} and {len(spec.zones)} zones."
            )
        if not command:
            raise InputError("a job needs a command to run; give it after '--'.")
        self.market, self.spec, self.folder = market, spec, folder.absolute()
        self.world = World(
            run="",
            regions=tuple(zone.region for zone in spec.zones),
            available=market.available,
            cold_ticks=round(spec.job.cold_start_s / spec.tick_s),
            tick_s=spec.tick_s / pace.speedup,
            upload_every_s=(spec.tick_s if pace.upload_every_s is None else pace.upload_every_s) / pace.speedup,
            grace_s=pace.grace_s,
            linger_s=pace.linger_s,
            command=tuple(command),
            endpoint_url=endpoint_url,
        )
        self._stream: Any = None
        self._process: subprocess.Popen[bytes] | None = None
        self._events = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def open(self) -> None:
        """Connect to the folder's cloud; start it if there is none.

        Raises
        ------
        CloudError
            If its process does not come up; the message ends with its last words.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._describe()
        give_up_at = time.monotonic() + _PATIENCE_S
        while not self._connect():
            if self._process is None:
                with (self.folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "cloudchamber.spot.clouds.supervisor", str(self.folder)],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
            status = self._process.poll()
            if status not in (None, 0, LOCKED) or time.monotonic() > give_up_at:
                words = (self.folder / "log").read_text(errors="replace").strip().splitlines()
                raise CloudError(f"the local cloud in {self.folder} did not come up: {' | '.join(words[-3:])}")
            if status is not None:  # another one was just coming up, or just leaving
                self._process = None
            time.sleep(0.02)

    def status(self) -> CloudStatus:
        """Return the cloud as it is now."""
        return self._status(self._call("status"))

    def wait(self, until_s: float) -> CloudStatus:
        """Let the clock run until ``until_s``, or until something happened."""
        return self._status(self._call("wait", round(until_s / self.spec.tick_s), self._events))

    def launch(self, zone: int, mode: Mode) -> int | None:
        """Start an instance; None if the zone has no spot capacity."""
        return self._call("launch", zone, mode)  # type: ignore[no-any-return]

    def start(self, instance: int) -> None:
        """Run the job on an instance once it is cold no more."""
        self._call("start", instance)

    def terminate(self, instance: int) -> None:
        """Begin to shut an instance down."""
        self._call("terminate", instance)

    def probe(self, zone: int) -> bool:
        """Whether the zone has spot capacity; billed if so."""
        return bool(self._call("probe", zone))

    def copy(self, zone: int) -> None:
        """Begin to copy the newest checkpoint to the zone's region."""
        self._call("copy", zone)

    def fetch(self, folder: Path) -> bool:
        """Lay the newest checkpoint into a folder."""
        return bool(self._call("fetch", str(folder.absolute())))

    def ledger(self) -> dict[str, float]:
        """Bill the journal: every started tick of every instance, every copy, every probe."""
        tick = int(self._call("status")["tick"])
        return bill(read_journal(self.folder / "journal"), self.market, self.spec, tick)

    def faults(self) -> dict[str, int]:
        """Faults that were survived, by kind."""
        return dict(Counter(record["fault"] for record in read_journal(self.folder / "journal") if record["kind"] == "fault"))

    def close(self) -> None:
        """Shut down what is up, save the newest checkpoint, end the cloud's process; return when it is gone."""
        if self._stream is None:
            return
        try:
            self._call("close")
        finally:
            self._stream.close()
            self._stream = None
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _describe(self) -> None:
        """Write the world down for the process, or check that the one there is the same."""
        path = self.folder / "world"
        if path.exists():
            there = decode(path.read_bytes(), World)
            if (there.command, there.regions, there.cold_ticks) != (
                self.world.command,
                self.world.regions,
                self.world.cold_ticks,
            ) or not np.array_equal(there.available, self.world.available):
                raise InputError(f"{self.folder} is the cloud of another job or market; give another folder.")
            return
        new = path.with_name("world.new")
        values = {name: getattr(self.world, name) for name in World.__struct_fields__}
        new.write_bytes(encode(World(**{**values, "run": uuid.uuid4().hex[:12]})))
        new.replace(path)

    def _connect(self) -> bool:
        try:
            address = (self.folder / "address").read_text()
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        self._stream = connection.makefile("rwb")
        connection.close()  # the stream keeps it open
        return True

    def _call(self, *request: Any) -> Any:
        if self._stream is None:
            raise CloudError("the local cloud is not open; use it in a with statement.")
        try:
            self._stream.write(json.dumps(request).encode() + b"\n")
            self._stream.flush()
            answer = json.loads(self._stream.readline())
        except (OSError, ValueError) as error:
            raise CloudError(f"the local cloud in {self.folder} is gone ({error}); run again to go on from its journal.") from error
        if "error" in answer:
            raise CloudError(f"the local cloud could not {request[0]}: {answer['error']}")
        return answer["value"]

    def _status(self, answer: dict[str, Any]) -> CloudStatus:
        self._events = answer["events"]
        tick_s, newest = self.spec.tick_s, answer["newest"]
        instances = [
            InstanceStatus(number, zone, mode, state, start * tick_s, None if end is None else end * tick_s, status)
            for number, zone, mode, state, start, end, status in answer["instances"]
        ]
        row = min(answer["tick"], self.market.ticks - 1)
        return CloudStatus(
            answer["tick"] * tick_s,
            self.market.spot_usd_h[row],
            tuple(instances),
            0.0 if newest is None else newest["progress"],
            None if newest is None else newest["zone"],
        )


def bill(records: list[dict[str, Any]], market: Market, spec: SpotSpec, tick: int) -> dict[str, float]:
    """Bill a local cloud's journal up to a tick, in USD: each instance pays at least the tick it was launched in."""
    hours = market.tick_s / 3600
    ends = {record["instance"]: record["tick"] for record in records if record["kind"] == "end"}
    spent = {"spot_usd": 0.0, "on_demand_usd": 0.0, "egress_usd": 0.0, "probe_usd": 0.0}
    for record in records:
        zone = record.get("zone", 0)
        if record["kind"] == "launch":
            ticks = np.arange(record["tick"], max(ends.get(record["instance"], tick), record["tick"] + 1))
            if record["mode"] == "spot":
                spent["spot_usd"] += float(market.spot_usd_h[np.minimum(ticks, market.ticks - 1), zone].sum()) * hours
            else:
                spent["on_demand_usd"] += len(ticks) * float(market.on_demand_usd_h[zone]) * hours
        elif record["kind"] == "egress":
            spent["egress_usd"] += float(spec.egress_usd[record["source"], record["target"]])
        elif record["kind"] == "probe":
            spent["probe_usd"] += float(market.spot_usd_h[min(record["tick"], market.ticks - 1), zone]) * spec.probe_s / 3600
    return spent
