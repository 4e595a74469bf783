"""What the local cloud is made of, and one instance of it: a thread that runs a real job from launch to end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.messages import Message
from cloudchamber.spot.cloud import InstanceState
from cloudchamber.spot.model import Mode

from .agent import Agent
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from .zones import Zones

ENDED = ("released", "preempted")


class World(Message, frozen=True):
    """What the local cloud is made of; written by the client, read by the process.

    Parameters
    ----------
    run : str
        Marks processes, buckets and files of this cloud.
    regions : tuple of str
    available : ndarray of bool, shape (ticks, zones)
        After its last row the market stays as it is.
    cold_ticks : int
    tick_s, upload_every_s, grace_s, linger_s : float
        Real seconds: of a tick, between uploads, from SIGTERM to SIGKILL, and for which to go on without a scheduler.
    command : tuple of str
    endpoint_url : str or None
        None: an S3 server inside this process.
    """

    run: str
    regions: tuple[str, ...]
    available: np.ndarray
    cold_ticks: int
    tick_s: float
    upload_every_s: float
    grace_s: float
    linger_s: float
    command: tuple[str, ...]
    endpoint_url: str | None


class Instance(threading.Thread):
    """One instance: waits for its job, its cold start and its end. Its cloud's lock guards ``state``."""

    def __init__(self, cloud: Zones, number: int, zone: int, mode: Mode, tick: int) -> None:
        super().__init__(name=f"instance-{number}", daemon=True)
        self.cloud, self.number, self.zone, self.mode, self.launched_tick = cloud, number, zone, mode, tick
        self.state: InstanceState = "waiting"
        self.fate: InstanceState = "released"
        self.ended_tick: int | None = None
        self.exit_status: int | None = None
        self.checkpoint: Checkpoint | None = None
        folder = cloud.folder / "instances" / f"{number:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        world = cloud.world
        self.agent = Agent(
            cloud.store, zone, number, world.command, folder, upload_every_s=world.upload_every_s, grace_s=world.grace_s, saw=cloud.saw
        )

    @property
    def is_warm(self) -> bool:
        """Whether its cold start is over."""
        return self.cloud.tick >= self.launched_tick + self.cloud.world.cold_ticks

    def run(self) -> None:
        """Live from launch to end."""
        cloud = self.cloud
        while self._await(lambda: self.state == "starting"):
            if self.agent.prepare(self.checkpoint) and self._await(lambda: self.is_warm):
                self._run_job()
                self._await(lambda: False)
            elif not self.agent.stop.is_set():
                cloud.recount()  # the checkpoint may have been found damaged
                self._become("waiting")
        self.agent.shut_down()
        with cloud.changed:
            self.ended_tick = cloud.tick
            cloud.note(kind="end", instance=self.number, tick=cloud.tick, fate=self.fate)
            self._become(self.fate)

    def end(self, fate: InstanceState) -> None:
        """Begin to shut down; called with the cloud's lock held."""
        if self.state not in ("ending", *ENDED):
            self.fate = fate
            self.agent.stop.set()
            self._become("ending")

    def _run_job(self) -> None:
        world = self.cloud.world
        try:
            self.agent.spawn({"CHAMBER_RUN": f"{world.run}/{self.number}", "CHAMBER_ZONE": str(self.zone)})
        except OSError as error:
            self.cloud.saw(error)
            self.exit_status = 127
        else:
            self._become("running")
            self.exit_status = self.agent.work()
        if self.exit_status is not None:
            self._become("done" if self.exit_status == 0 else "failed")

    def _await(self, is_so: Callable[[], bool]) -> bool:
        """Wait until ``is_so``; False if the end came first."""
        with self.cloud.changed:
            self.cloud.changed.wait_for(lambda: self.agent.stop.is_set() or is_so())
            return not self.agent.stop.is_set()

    def _become(self, state: InstanceState) -> None:
        with self.cloud.changed:
            if self.state != "ending" or state in ENDED:
                self.state = state
            self.cloud.events += 1
            self.cloud.changed.notify_all()
