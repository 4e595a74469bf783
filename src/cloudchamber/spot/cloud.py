"""What a real cloud must be able to do for the runtime, what the runtime sees of it, and what a run on it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from cloudchamber.core.errors import ChamberError
from cloudchamber.core.messages import Message

from .model import Mode

InstanceState = Literal["waiting", "starting", "running", "done", "failed", "ending", "released", "preempted"]


class CloudError(ChamberError, RuntimeError):
    """The cloud could not be reached, or refused a verb for another reason than lacking capacity."""


class InstanceStatus(Message, frozen=True):
    """One instance, present or past.

    Parameters
    ----------
    number : int
        Instances are numbered from 1 in order of their launch.
    zone : int
    mode : {"spot", "on_demand"}
    state : str
        waiting (no job yet), starting, running, done or failed (the job ended by itself), ending, released, preempted.
    launched_s, ended_s : float
        Seconds since the job's start; ``ended_s`` is None while it is up.
    exit_status : int or None
        Of the job, when it ended by itself.
    """

    number: int
    zone: int
    mode: Mode
    state: InstanceState
    launched_s: float
    ended_s: float | None = None
    exit_status: int | None = None

    @property
    def is_up(self) -> bool:
        """Whether it is there and not being shut down."""
        return self.state not in ("ending", "released", "preempted")


class CloudStatus(Message, frozen=True):
    """The cloud as the scheduler sees it at one moment.

    Parameters
    ----------
    time_s : float
        Seconds since the job's start.
    spot_usd_h : ndarray of shape (zones,)
    instances : tuple of InstanceStatus
        All that were ever launched for this run, in order.
    progress : float
        Finished share of the work in the newest complete checkpoint: the only progress that counts.
    location : int or None
        Zone whose region holds that checkpoint.
    """

    time_s: float
    spot_usd_h: np.ndarray
    instances: tuple[InstanceStatus, ...]
    progress: float = 0.0
    location: int | None = None


class CloudAdapter(Protocol):
    """What a cloud must be able to do; ``start``, ``terminate`` and ``copy`` may be repeated without harm."""

    def status(self) -> CloudStatus:
        """Return the cloud as it is now."""

    def wait(self, until_s: float) -> CloudStatus:
        """Return at ``until_s``, or sooner when something happened that a scheduler may act on."""

    def launch(self, zone: int, mode: Mode) -> int | None:
        """Start an instance, without the job, and return its number; None if there is no capacity (free)."""

    def start(self, instance: int) -> None:
        """Run the job on an instance once it is cold no more, from the newest checkpoint, which lies in its region."""

    def terminate(self, instance: int) -> None:
        """Begin to shut an instance down: SIGTERM, a last upload, the end."""

    def probe(self, zone: int) -> bool:
        """Whether a spot instance could be launched; billed if so."""

    def copy(self, zone: int) -> None:
        """Begin to copy the newest checkpoint to the zone's region, unless a copy is under way."""

    def fetch(self, folder: Path) -> bool:
        """Lay the newest checkpoint into a local folder; False if there is none."""

    def ledger(self) -> Mapping[str, float]:
        """The bill so far in USD: ``spot_usd``, ``on_demand_usd``, ``egress_usd``, ``probe_usd``."""

    def faults(self) -> Mapping[str, int]:
        """How often something went wrong that was survived, by kind."""

    def close(self) -> None:
        """Shut down what is still up and release the cloud."""


@dataclass(frozen=True)
class SpotRun:
    """What became of a run.

    Parameters
    ----------
    is_finished : bool
        Whether a complete checkpoint says that all work is done.
    end_s, deadline_s : float
        Seconds from the job's start to the end of its last instance, and to its deadline.
    progress : float
        Finished share of the work.
    spent_usd : dict
        The ledger: ``spot_usd``, ``on_demand_usd``, ``egress_usd``, ``probe_usd``.
    instances : tuple of InstanceStatus
        In order of their launch.
    failed_launches, questions : int
        Spot launches refused; questions the policy was asked.
    faults : dict
        Faults that were survived, by kind.
    result : Path or None
        Folder with the job's last checkpoint.
    """

    is_finished: bool
    end_s: float
    deadline_s: float
    progress: float
    spent_usd: dict[str, float]
    instances: tuple[InstanceStatus, ...]
    failed_launches: int
    questions: int
    faults: dict[str, int]
    result: Path | None

    @property
    def is_late(self) -> bool:
        """Whether the deadline was missed."""
        return not self.is_finished or self.end_s > self.deadline_s + 1e-6

    @property
    def total_usd(self) -> float:
        """The whole bill."""
        return sum(self.spent_usd.values())

    @property
    def launches(self) -> int:
        """Instances launched."""
        return len(self.instances)

    @property
    def preemptions(self) -> int:
        """Instances taken away by the cloud."""
        return sum(each.state == "preempted" for each in self.instances)

    @property
    def migrations(self) -> int:
        """Launches in another zone than the launch before."""
        return sum(a.zone != b.zone for a, b in pairwise(self.instances))

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON can hold them."""
        return {
            "evidence": "measured",
            "finished": self.is_finished,
            "late": self.is_late,
            "progress": self.progress,
            "total_usd": self.total_usd,
            **self.spent_usd,
            "launches": self.launches,
            "preemptions": self.preemptions,
            "migrations": self.migrations,
            "failed_launches": self.failed_launches,
            "questions": self.questions,
            "end_s": self.end_s,
            "deadline_slack_s": self.deadline_s - self.end_s,
            "faults": self.faults,
            "result": None if self.result is None else str(self.result),
        }
