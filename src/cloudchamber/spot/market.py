"""A market: availability and prices of spot instances in several zones, tick by tick, and how money is counted in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cloudchamber.core.errors import InputError

from .model import Job, Zone


@dataclass(frozen=True, eq=False)
class Market:
    """Spot capacity and prices over time.

    Parameters
    ----------
    zones : tuple of Zone
    tick_s : float
        Seconds between rows of the arrays.
    available : ndarray of bool, shape (ticks, zones)
        True where a spot instance can be launched and stays alive.
    spot_usd_h : ndarray of float, shape (ticks, zones)
        Spot price in USD per hour.
    egress_usd_gb : ndarray of float, shape (zones, zones)
        Price of copying one GB from zone to zone; 0 inside a region.

    Raises
    ------
    InputError
        For unequal shapes, prices that are negative or not finite, or duplicate zone names.
    """

    zones: tuple[Zone, ...]
    tick_s: float
    available: np.ndarray
    spot_usd_h: np.ndarray
    egress_usd_gb: np.ndarray

    def __post_init__(self) -> None:
        names = [zone.name for zone in self.zones]
        if not names:
            raise InputError("a market needs at least one zone.")
        if len(set(names)) < len(names):
            raise InputError(f"zone names must be unique, got {', '.join(sorted(names))}.")
        if not (math.isfinite(self.tick_s) and self.tick_s > 0):
            raise InputError(f"tick_s must be a positive number of seconds, got {self.tick_s!r}.")
        if self.available.shape != self.spot_usd_h.shape or self.available.shape[1:] != (len(names),):
            raise InputError(
                f"availability {self.available.shape} and prices {self.spot_usd_h.shape} must both be (ticks, {len(names)}); "
                "give every zone as many prices as availability samples."
            )
        for what, values in (
            ("spot price", self.spot_usd_h),
            ("egress price", self.egress_usd_gb),
            ("on-demand price", np.array([zone.on_demand_usd_h for zone in self.zones])),
        ):
            bad = ~np.isfinite(values) | (values < 0)
            if bad.any():
                where = np.argwhere(bad)[0]
                raise InputError(
                    f"{what} {values[tuple(where)]} in zone {names[where[-1]]!r}, row {where[0]}: prices must be "
                    "finite and not negative; fill or drop that sample."
                )
        for name in ("available", "spot_usd_h", "egress_usd_gb"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def ticks(self) -> int:
        """Number of rows."""
        return len(self.available)

    @cached_property
    def on_demand_usd_h(self) -> np.ndarray:
        """On-demand price of every zone."""
        return np.array([zone.on_demand_usd_h for zone in self.zones])

    @cached_property
    def regions(self) -> np.ndarray:
        """Index of every zone's region, regions numbered in order of first appearance."""
        order: dict[str, int] = {}
        return np.array([order.setdefault(zone.region, len(order)) for zone in self.zones])

    def select(self, names: tuple[str, ...]) -> Market:
        """Return the market of these zones only.

        Raises
        ------
        InputError
            If a zone is not in the market.
        """
        have = [zone.name for zone in self.zones]
        missing = [name for name in names if name not in have]
        if missing:
            raise InputError(f"no zone {missing[0]!r} in this market; it has {', '.join(have)}.")
        index = [have.index(name) for name in names]
        return replace(
            self,
            zones=tuple(self.zones[i] for i in index),
            available=self.available[:, index],
            spot_usd_h=self.spot_usd_h[:, index],
            egress_usd_gb=self.egress_usd_gb[np.ix_(index, index)],
        )

    def window(self, start: int, ticks: int) -> Market:
        """Return ``ticks`` rows from ``start`` on.

        Raises
        ------
        InputError
            If the window does not lie inside the market.
        """
        if start < 0 or ticks < 1 or start + ticks > self.ticks:
            raise InputError(
                f"window of {ticks} ticks from tick {start} runs past the trace, which has {self.ticks} ticks "
                f"({self.ticks * self.tick_s / 3600:.1f} h); give a longer trace, an earlier start or a shorter deadline."
            )
        rows = slice(start, start + ticks)
        return replace(self, available=self.available[rows], spot_usd_h=self.spot_usd_h[rows])

    def refined(self, factor: int) -> Market:
        """Return the same market with every row repeated ``factor`` times."""
        if factor == 1:
            return self
        return replace(
            self,
            tick_s=self.tick_s / factor,
            available=np.repeat(self.available, factor, axis=0),
            spot_usd_h=np.repeat(self.spot_usd_h, factor, axis=0),
        )


@dataclass(frozen=True)
class Ticks:
    """A job counted in the market's ticks."""

    work: int
    deadline: int
    cold_start: int

    @classmethod
    def of(cls, job: Job, tick_s: float, *, rounding: bool = False) -> Ticks:
        """Count a job in ticks: work and cold start rounded up, the deadline down.

        Raises
        ------
        InputError
            If ``tick_s`` does not divide the cold start, work or deadline and ``rounding`` was not asked for, or rounding leaves the job
            without enough time.
        """
        work, cold, deadline = (x / tick_s for x in (job.work_s, job.cold_start_s, job.deadline_s))
        uneven = [name for name, x in (("work_s", work), ("cold_start_s", cold), ("deadline_s", deadline)) if abs(x - round(x)) > 1e-9]
        if uneven and not rounding:
            raise InputError(
                f"a tick of {tick_s:g} s does not divide {uneven[0]}={getattr(job, uneven[0]):g} s; choose a tick that does, or "
                "ask for rounding (--set rounding=true): work and cold start up, the deadline down, to whole ticks."
            )
        ticks = cls(math.ceil(work - 1e-9), math.floor(deadline + 1e-9), math.ceil(cold - 1e-9))
        if ticks.deadline < ticks.work + ticks.cold_start:
            raise InputError(
                f"in whole ticks of {tick_s:g} s the job needs {ticks.work} + {ticks.cold_start} of them but has only "
                f"{ticks.deadline} before its deadline; use a finer tick or a later deadline."
            )
        return ticks

    def job(self, tick_s: float, checkpoint_gb: float) -> Job:
        """The job in seconds again, as the simulated world and its policies see it."""
        return Job(self.work * tick_s, self.deadline * tick_s, self.cold_start * tick_s, checkpoint_gb)
