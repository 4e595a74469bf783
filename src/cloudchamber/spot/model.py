"""The nouns of spot scheduling: jobs, zones, what a policy sees and what it may answer."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import AnyFloat, Message

Mode = Literal["spot", "on_demand"]
State = Literal["idle", "spot", "on_demand"]
MODES: tuple[Mode, ...] = ("spot", "on_demand")
LEDGER = ("spot_usd", "on_demand_usd", "egress_usd", "probe_usd")  # what a bill is made of


class Job(Message, frozen=True):
    """A checkpointing batch job with a deadline.

    Parameters
    ----------
    work_s : float
        Compute it needs, in seconds of an undisturbed run (P).
    deadline_s : float
        Seconds from its start until it must be finished (T).
    cold_start_s : float
        Seconds every launch pays without progress: boot, set-up, loading the checkpoint (d).
    checkpoint_gb : float
        Size of the checkpoint that a migration between regions copies.

    Raises
    ------
    InputError
        If the deadline cannot be met even by an on-demand instance started at once.
    """

    work_s: float
    deadline_s: float
    cold_start_s: float
    checkpoint_gb: float = 0.0

    def __post_init__(self) -> None:
        Message.__post_init__(self)
        for name in ("work_s", "deadline_s", "cold_start_s", "checkpoint_gb"):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0 or (name == "work_s" and value == 0):
                raise InputError(f"{name} must be a finite number {'above' if name == 'work_s' else 'of at least'} 0, got {value!r}.")
        if self.deadline_s < self.work_s + self.cold_start_s:
            raise InputError(
                f"deadline_s={self.deadline_s:g} is before the earliest possible finish, work_s + cold_start_s = "
                f"{self.work_s + self.cold_start_s:g}; no schedule can meet it. Give the job more time or less work."
            )


class Zone(Message, frozen=True):
    """A place where instances run: its name, the region it shares checkpoints with, its on-demand price."""

    name: str
    region: str
    on_demand_usd_h: float


class SpotSpec(Message, frozen=True):
    """What a policy knows before the trial: the job and the market's static facts, never the trace.

    Parameters
    ----------
    job : Job
    zones : tuple of Zone
        Policies name zones by their index in this tuple.
    egress_usd : ndarray of shape (zones, zones)
        Cost of copying the checkpoint from one zone to another; 0 inside a region.
    tick_s : float
        The world's resolution: retries and notices happen on ticks.
    probe_s : float
        Seconds of spot price that one successful probe costs.
    future : Future or None
        The whole market, shown to the package's own clairvoyant policies only.
    """

    job: Job
    zones: tuple[Zone, ...]
    egress_usd: np.ndarray
    tick_s: float
    probe_s: float
    future: Future | None = None

    @property
    def on_demand_usd_h(self) -> np.ndarray:
        """On-demand price of every zone, shape (zones,)."""
        return np.array([zone.on_demand_usd_h for zone in self.zones])


class Future(Message, frozen=True):
    """The market of the trial, tick by tick: spot availability (bool) and price (USD/h), both of shape (ticks, zones)."""

    available: np.ndarray
    spot_usd_h: np.ndarray


class Try(Message, frozen=True):
    """What became of the last attempt to launch in a zone: granted or refused, and when."""

    zone: int
    mode: Mode
    granted: bool
    time_s: float


class Probe(Message, frozen=True):
    """What a probe found: whether a spot instance could have been launched, and when."""

    zone: int
    available: bool
    time_s: float


class SpotObs(Message, frozen=True):
    """What a policy sees when it is asked.

    Parameters
    ----------
    time_s, progress_s : float
        Seconds since the job's start; seconds of work done.
    mode : {"idle", "spot", "on_demand"}
    zone : int or None
        Where the instance runs; None when idle.
    location : int or None
        Where the newest checkpoint lies; None before the first launch (it costs no egress).
    cold_s : float
        Seconds of cold start that the running instance still has before it.
    spot_usd_h : ndarray of shape (zones,)
        Spot prices now (they are public, also where nothing is available).
    preempted : int or None
        The zone whose spot instance died just now.
    tries : tuple of Try
        Launches attempted since the last question, the last attempt for each zone and mode.
    probes : tuple of Probe
        Answers to the probes of the last decision.
    """

    time_s: float
    progress_s: float
    mode: State
    zone: int | None
    location: int | None
    cold_s: float
    spot_usd_h: np.ndarray
    preempted: int | None = None
    tries: tuple[Try, ...] = ()
    probes: tuple[Probe, ...] = ()


class Launch(Message, frozen=True, tag="launch"):
    """Start an instance in a zone and, once it is granted, release the present one. Launching what already runs keeps it."""

    zone: int
    mode: Mode


class Keep(Message, frozen=True, tag="keep"):
    """Leave everything as it is."""


class Idle(Message, frozen=True, tag="idle"):
    """Release the present instance and wait."""


class Decision(Message, frozen=True):
    """A standing order.

    Parameters
    ----------
    prefs : tuple of Launch, Keep or Idle
        At every tick the executor tries them in order and stops at the first that succeeds (on-demand launches, ``Keep`` and
        ``Idle`` always do, spot launches may be refused, at no cost). When none succeeds everything stays as it is.
    probes : tuple of int
        Zones to probe once, now. A probe that finds spot capacity costs ``spec.probe_s`` seconds of its price.
    until_s : float or None
        When to be asked again (None: at the next tick). A preemption, a granted launch or a price change comes first.
    """

    prefs: tuple[Launch | Keep | Idle, ...] = (Keep(),)
    probes: tuple[int, ...] = ()
    until_s: AnyFloat | None = None


class SpotPolicy(Protocol):
    """Decides where and when a deadline job runs."""

    def reset(self, spec: SpotSpec, rng: np.random.Generator) -> None:
        """Forget everything and learn the static facts of the next trial."""

    def decide(self, obs: SpotObs) -> Decision:
        """Return the standing order from now on."""


KEEP, IDLE = Keep(), Idle()
FOREVER = float("inf")
