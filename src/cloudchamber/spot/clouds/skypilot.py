"""The clouds behind SkyPilot: each instance is a cluster of its own, checkpoints lie in one bucket per region.

Needs SkyPilot 0.14 with its API server (extra ``skypilot``) and credentials for the clouds and for S3. On every machine
SkyPilot's setup installs this package; its agent (``remote``) fetches and uploads the checkpoints.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from cloudchamber.core.errors import MissingExtra
from cloudchamber.spot.cloud import CloudStatus, InstanceState, InstanceStatus
from cloudchamber.spot.model import Mode, SpotSpec

from .checkpoint import CheckpointError
from .checkpoints import CheckpointStore
from .remote import Plan
from .skybooks import Books

_JOB_STATES: dict[str, InstanceState] = {
    "INIT": "starting",
    "PENDING": "starting",
    "SETTING_UP": "starting",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "FAILED_DRIVER": "failed",
    "FAILED_SETUP": "failed",
    "CANCELLED": "failed",
}


@dataclass(frozen=True)
class Machine:
    """What SkyPilot is asked for.

    Parameters
    ----------
    cloud : str, default "aws"
        A zone of name Z in region R is ``infra="CLOUD/R/Z"``.
    resources : dict
        More arguments of ``sky.Resources``, such as ``{"accelerators": "V100:1"}``.
    setup : str
        Commands that prepare a machine, this package included.
    upload_every_s, grace_s : float
        Seconds between uploads; given to the job to stop.
    idle_minutes : int, default 30
        A cluster without a job ends by itself after this time, should the scheduler never come back.
    """

    cloud: str = "aws"
    resources: Mapping[str, Any] = field(default_factory=dict)
    setup: str = "pip install 'cloudchamber[localcloud]'"
    upload_every_s: float = 600.0
    grace_s: float = 60.0
    idle_minutes: int = 30


class SkyPilotCloud:
    """A :class:`CloudAdapter` over SkyPilot's Python API. Launching blocks until SkyPilot has, or has not, got the machine.

    Parameters
    ----------
    spec : SpotSpec
    command : tuple of str
        The job, as for ``LocalCloud``.
    folder : Path
        Keeps the journal: every cluster is on record before it is asked for, so none can be forgotten.
    prices : callable
        Returns the spot prices now, USD/h, shape (zones,).
    machine : Machine, optional
    store : CheckpointStore, optional
        Default: buckets in AWS named after the run.
    client : module, optional
        Default: ``sky``.

    Raises
    ------
    MissingExtra
        If SkyPilot is not installed.
    """

    def __init__(
        self,
        spec: SpotSpec,
        command: tuple[str, ...],
        folder: Path,
        prices: Callable[[], np.ndarray],
        *,
        machine: Machine = Machine(),
        store: CheckpointStore | None = None,
        client: Any = None,
    ) -> None:
        self.sky = _sky() if client is None else client
        self.spec, self.command, self.prices, self.machine = spec, command, prices, machine
        self.regions = tuple(zone.region for zone in spec.zones)
        self.books = Books(folder / "journal", spec)
        self.run = self.books.run
        self.store = store if store is not None else CheckpointStore(self.regions, f"chamber-{self.run}")
        self.store.create()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def status(self) -> CloudStatus:
        """Return what SkyPilot and the buckets say now."""
        usd_h = self.books.note_prices(self.prices())
        ends = self.books.ends()
        up = [record for record in self.books.of("launch") if record["instance"] not in ends]
        here = self._clusters([self._cluster(record["instance"]) for record in up])
        instances = []
        for record in self.books.of("launch"):
            number, end = record["instance"], ends.get(record["instance"])
            if end is None and here.get(self._cluster(number)) != "UP":  # a cluster in any other state is no longer one to rely on
                self._down(number)
                end = self.books.end(number, "preempted" if record["mode"] == "spot" else "released")
            if end is None or end["fate"] != "refused":
                instances.append(
                    InstanceStatus(
                        number,
                        record["zone"],
                        record["mode"],
                        end["fate"] if end else self._job_state(number),
                        self.books.since(record),
                        self.books.since(end) if end else None,
                    )
                )
        newest = self.store.newest()
        progress, location = (0.0, None) if newest is None else (newest.progress, newest.zone)
        return CloudStatus(self.books.now_s(), usd_h, tuple(instances), progress, location)

    def wait(self, until_s: float) -> CloudStatus:
        """Sleep until then."""
        time.sleep(max(0.0, until_s - (self.books.now_s())))
        return self.status()

    def launch(self, zone: int, mode: Mode) -> int | None:
        """Ask SkyPilot for a cluster of one machine in the zone; None if it cannot be had."""
        number = 1 + len(self.books.of("launch"))
        self.books.note(kind="launch", instance=number, zone=zone, mode=mode)
        if self._acquire(self._cluster(number), zone, mode):
            return number
        self._down(number)
        self.books.end(number, "refused")
        return None

    def start(self, instance: int) -> None:
        """Run the agent with the job on the cluster."""
        if any(record["instance"] == instance for record in self.books.of("start")):
            return
        zone = next(record["zone"] for record in self.books.of("launch") if record["instance"] == instance)
        plan = Plan(f"chamber-{self.run}", self.regions, zone, instance, self.machine.upload_every_s, self.machine.grace_s)
        run = shlex.join(["python", "-m", "cloudchamber.spot.clouds.remote", msgspec.json.encode(plan).decode(), *self.command])
        self.books.note(kind="start", instance=instance)
        self.sky.get(self.sky.exec(self.sky.Task(name=self._cluster(instance), run=run), cluster_name=self._cluster(instance)))

    def terminate(self, instance: int) -> None:
        """Leave word for the agent to stop, wait for its last upload, take the cluster down."""
        if instance in self.books.ends():
            return
        zone = next(record["zone"] for record in self.books.of("launch") if record["instance"] == instance)
        try:
            self.store.ask_to_stop(zone, instance)
            give_up_at = time.monotonic() + self.machine.grace_s
            while self._job_state(instance) in ("starting", "running") and time.monotonic() < give_up_at:
                time.sleep(min(5.0, self.machine.grace_s))
        except (CheckpointError, self.sky.exceptions.ClusterDoesNotExist, self.sky.exceptions.ClusterNotUpError) as error:
            self.books.fault(error)
        self._down(instance)
        self.books.end(instance, "released")

    def probe(self, zone: int) -> bool:
        """Launch a spot cluster and take it down at once: SkyPilot knows no cheaper way to ask."""
        number = 1 + len(self.books.of("launch"))
        self.books.note(kind="launch", instance=number, zone=zone, mode="spot")
        is_up = self._acquire(self._cluster(number), zone, "spot")
        self._down(number)
        self.books.end(number, "refused")
        if is_up:
            self.books.note(kind="probe", zone=zone, usd_h=float(self.prices()[zone]))
        return is_up

    def copy(self, zone: int) -> None:
        """Copy the newest checkpoint to the zone's region."""
        newest = self.store.newest()
        if newest is None:
            return
        try:
            is_there = self.store.holds(newest, zone)
            self.store.copy(newest, zone)
        except CheckpointError as error:
            self.books.fault(error)
            return
        if not is_there:
            self.books.note(kind="egress", source=newest.zone, target=zone)

    def fetch(self, folder: Path) -> bool:
        """Download the newest checkpoint."""
        newest = self.store.newest()
        if newest is not None:
            self.store.download(newest, folder)
        return newest is not None

    def ledger(self) -> dict[str, float]:
        """Bill the journal by the second, at the prices seen; SkyPilot's own ``sky cost-report`` is the second opinion."""
        return self.books.ledger()

    def faults(self) -> dict[str, int]:
        """Faults that were survived, by kind."""
        return dict(Counter(record["fault"] for record in self.books.of("fault")))

    def close(self) -> None:
        """Take down every cluster that is up."""
        for record in self.books.of("launch"):
            self.terminate(record["instance"])

    def _acquire(self, cluster: str, zone: int, mode: Mode) -> bool:
        sky, place = self.sky, self.spec.zones[zone]
        task = sky.Task(name=cluster, setup=self.machine.setup)
        task.set_resources(
            sky.Resources(infra=f"{self.machine.cloud}/{place.region}/{place.name}", use_spot=mode == "spot", **self.machine.resources)
        )
        try:
            sky.get(
                sky.launch(task, cluster_name=cluster, retry_until_up=False, down=True, idle_minutes_to_autostop=self.machine.idle_minutes)
            )
        except sky.exceptions.ResourcesUnavailableError:
            return False
        return True

    def _clusters(self, names: list[str]) -> dict[str, str]:
        """State of those of the clusters that exist, as the cloud itself reports it."""
        if not names:
            return {}
        found = self.sky.get(self.sky.status(cluster_names=names, refresh=self.sky.StatusRefreshMode.FORCE))
        return {each.name: each.status.name for each in found}

    def _job_state(self, number: int) -> InstanceState:
        if not any(record["instance"] == number for record in self.books.of("start")):
            return "waiting"
        states = list(self.sky.get(self.sky.job_status(self._cluster(number))).values())
        return _JOB_STATES[states[-1].name] if states and states[-1] is not None else "starting"

    def _down(self, number: int) -> None:
        try:
            self.sky.get(self.sky.down(self._cluster(number)))
        except self.sky.exceptions.ClusterDoesNotExist:
            return  # which is what was wanted

    def _cluster(self, number: int) -> str:
        return f"chamber-{self.run}-{number}"


def _sky() -> Any:
    try:
        import sky
    except ImportError:
        raise MissingExtra("running on real clouds needs SkyPilot", "skypilot") from None
    return sky
