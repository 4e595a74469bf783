"""Workloads: which market, which job. The named ones, a user's own trace, and their trials."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace as replace_fields

from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of, start_of

from .data import MARKETS
from .market import Market, Ticks
from .model import Job, SpotSpec
from .optimum import Optimum, offline_optimum
from .simulator import Simulator
from .traces import read_user_trace
from .twin import ZoneStatistics, generate, twins

EASY_ZONES = (
    "us-west1-a",
    "us-west1-b",
    "us-east4-b",
    "us-central1-a",
    "europe-west1-c",
    "asia-southeast1-b",
    "asia-southeast1-c",
    "asia-south2-b",
)
MAX_TICKS = 8000  # of one trial: beyond, the exact optimum takes minutes and gigabytes


@dataclass(frozen=True, kw_only=True)
class SpotWorkload(Workload):
    """One deadline job, started at many times of one market.

    Parameters
    ----------
    market : str
        A public market (``gcp-h100``, ``aws-v100``, ...), ``toy`` (generated), or ``user``.
    zones : tuple of str
        Only these zones; empty means all.
    work_h : float
        Hours of undisturbed compute (P).
    deadline_ratio : float
        Deadline as a multiple of the work (T / P).
    cold_start_s, checkpoint_gb, probe_s : float
        Seconds per launch; GB per migration; billed seconds of spot price per successful probe.
    rounding : bool
        Round work and cold start up, the deadline down, to ticks of the trace's own gap. Otherwise the tick divides both.
    start_h : float or None
        Start every trial at this hour of the trace instead of the seed's.
    trace : Trace or None
        A user's own.
    folder : str or None
        Where the public data lies; None: not looked for yet.
    span : tuple of float
        The part of the trace that trials may start and end in, as shares of its length.
    renaming : int or None
        Zones are named and ordered anew, by a draw from this number.
    """

    market: str
    zones: tuple[str, ...] = ()
    work_h: float = 40.0
    deadline_ratio: float = 2.0
    cold_start_s: float = 360.0
    checkpoint_gb: float = 50.0
    probe_s: float = 60.0
    rounding: bool = False
    start_h: float | None = None
    trace: Trace | None = None
    folder: str | None = None
    span: tuple[float, float] = (0.0, 1.0)
    renaming: int | None = None

    @property
    def summary(self) -> str:
        """The job, and where its market comes from."""
        place = self.trace.path if self.trace is not None else f"{self.market}{' (generated twin)' if self.is_generated else ''}"
        return (
            f"{self.work_h:g} h of work, deadline after {self.work_h * self.deadline_ratio:g} h, cold start {self.cold_start_s:g} s, "
            f"checkpoint {self.checkpoint_gb:g} GB; market {place}{f', {len(self.zones)} zones' if self.zones else ''}."
        )

    def world(self, seed: int) -> World:
        """Return the seed's trial: its window of the market and its job in ticks.

        Raises
        ------
        InputError
            If the job does not fit the market.
        """
        return _world(self, seed)

    def whole_market(self, seed: int) -> Market:
        """The market the seed's window is cut from (for a generated one, drawn for this seed)."""
        market = _generated(self, seed) if self.is_generated else _read(self)
        if self.zones:
            market = market.select(self.zones)
        if self.span != (0.0, 1.0):
            first, last = (round(share * market.ticks) for share in self.span)
            market = market.window(first, max(last - first, 1))
        return market if self.renaming is None else _renamed(market, self.renaming)

    def part(self, lo: float, hi: float) -> SpotWorkload | None:
        """A share of the trace in time; None if the job's deadline does not fit into it three times over."""
        if self.is_generated:
            return self
        market = self.whole_market(0)
        hours = market.ticks * market.tick_s / 3600 * (hi - lo)
        first, last = self.span
        span = (first + lo * (last - first), first + hi * (last - first))
        return replace(self, span=span) if hours >= 3 * self.work_h * self.deadline_ratio else None

    def twin(self) -> SpotWorkload | None:
        """A market drawn to the statistics of the public one; None for a user's own trace."""
        if self.is_generated:
            return self
        return replace(self, is_generated=True) if self.trace is None and self.market in twins() else None

    def renamed(self, rng: np.random.Generator) -> SpotWorkload:
        """The same market with zones and regions named and ordered anew."""
        return replace(self, renaming=int(rng.integers(1 << 31)))


@dataclass(frozen=True)
class Trace:
    """Where a user's trace lies and how to read it: see :func:`cloudchamber.spot.traces.read_user_trace`."""

    path: str
    sha256: str = ""
    polarity: str | None = None
    gang: int = 1
    spot_usd_h: float | None = None
    on_demand_usd_h: float | None = None
    egress_usd_gb: float = 0.02


@dataclass(frozen=True, eq=False)
class World:
    """One trial.

    Parameters
    ----------
    market : Market
        The trial's window at the trial's tick.
    job : Ticks
    checkpoint_gb, probe_s : float
    start_h : float
        Hours from the start of the trace.
    """

    market: Market
    job: Ticks
    checkpoint_gb: float
    probe_s: float
    start_h: float = field(default=0.0)

    @cached_property
    def simulator(self) -> Simulator:
        """The verified world of this trial."""
        return Simulator(self.market, self.job, checkpoint_gb=self.checkpoint_gb, probe_s=self.probe_s)

    @cached_property
    def optimum(self) -> Optimum:
        """The cheapest schedule of this trial."""
        return offline_optimum(self.market, self.job, checkpoint_gb=self.checkpoint_gb)

    @property
    def spec(self) -> SpotSpec:
        """What a policy knows of this trial."""
        return self.simulator.spec


def _renamed(market: Market, renaming: int) -> Market:
    rng = np.random.default_rng(renaming)
    order = [market.zones[i].name for i in rng.permutation(len(market.zones))]
    regions = {zone.region: "" for zone in market.zones}
    for region, i in zip(regions, rng.permutation(len(regions)), strict=True):
        regions[region] = f"region{i}"
    moved = market.select(tuple(order))
    zones = tuple(
        replace_fields(zone, name=f"{regions[zone.region]}-{i}", region=regions[zone.region]) for i, zone in enumerate(moved.zones)
    )
    return replace(moved, zones=zones)


@lru_cache(maxsize=64)
def _world(workload: SpotWorkload, seed: int) -> World:
    market = workload.whole_market(seed)
    work_s = workload.work_h * 3600
    factor = _refinement(market.tick_s, workload, work_s)
    job = Ticks.of(
        Job(work_s, work_s * workload.deadline_ratio, workload.cold_start_s, workload.checkpoint_gb),
        market.tick_s / factor,
        rounding=workload.rounding,
    )
    if job.deadline > MAX_TICKS:
        raise InputError(
            f"the deadline is {job.deadline} ticks of {market.tick_s / factor:g} s away; the exact optimum takes up to {MAX_TICKS}. "
            "Give a longer cold_start_s, less work, or a trace with longer gaps."
        )
    samples = -(-job.deadline // factor)
    if workload.start_h is not None:
        start = round(workload.start_h * 3600 / market.tick_s)
    else:
        start = start_of(seed, max(market.ticks - samples + 1, 1))
    return World(market.window(start, samples).refined(factor), job, workload.checkpoint_gb, workload.probe_s, start * market.tick_s / 3600)


def _refinement(gap_s: float, workload: SpotWorkload, work_s: float) -> int:
    """Ticks per sample of the trace: the tick must divide the gap and the cold start, or the user asks for rounding."""
    cold_s = workload.cold_start_s
    if workload.rounding or cold_s == 0:
        return max(1, math.ceil(gap_s / cold_s)) if cold_s else 1
    step_s = (
        math.gcd(round(gap_s * 1000), round(cold_s * 1000), round(work_s * 1000), round(work_s * workload.deadline_ratio * 1000)) / 1000
    )
    if work_s * workload.deadline_ratio / step_s > MAX_TICKS:
        raise InputError(
            f"no workable tick divides the trace's gap of {gap_s:g} s and the cold start of {cold_s:g} s (it would be {step_s:g} s, over "
            f"{MAX_TICKS} ticks a trial); change cold_start_s, or --set rounding=true to round to whole ticks."
        )
    return round(gap_s / step_s)


@lru_cache(maxsize=8)
def _read(workload: SpotWorkload) -> Market:
    if workload.trace is not None:
        each = workload.trace
        return read_user_trace(
            Path(each.path),
            polarity=each.polarity,
            gang=each.gang,
            spot_usd_h=each.spot_usd_h,
            on_demand_usd_h=each.on_demand_usd_h,
            egress_usd_gb=each.egress_usd_gb,
        )
    from cloudchamber.core.datasets import locate

    from .data import spot_dataset

    folder = Path(workload.folder) if workload.folder else locate(spot_dataset())
    return MARKETS[workload.market](folder)


def _generated(workload: SpotWorkload, seed: int) -> Market:
    rng = rng_of("spot.market", workload.market, seed)
    if workload.market in twins():
        return twins()[workload.market].market(rng)
    zones = [
        ZoneStatistics(f"{region}-{letter}", region, price, 4 * price, 0.75, 600, 360_000, down, 1.0, 0.75, 0.3)
        for region, price, down in (("toy-east1", 1.0, 3600), ("toy-west1", 1.2, 7200))
        for letter in "ab"
    ]
    return generate(zones, ticks=1000, tick_s=600, rng=rng, egress_usd_gb={None: 0.02})


def named_workloads() -> Mapping[str, SpotWorkload]:
    """The workloads of the study, by name."""
    v100 = SpotWorkload(name="v100-9z-tp2.0", market="aws-v100", rounding=True)
    gang = SpotWorkload(name="h100-gang16-tp2.0", market="gcp-h100-gang16")
    easy = SpotWorkload(name="h100-8z-tp2.0", market="gcp-h100", zones=EASY_ZONES)
    main = [
        replace(easy, name="h100-8z-tp1.1", deadline_ratio=1.1),
        easy,
        v100,
        replace(gang, name="h100-gang16-tp1.1", deadline_ratio=1.1),
        gang,
    ]
    optional = [
        SpotWorkload(
            name="smoke", market="toy", seeds=2, is_optional=True, is_generated=True, work_h=8, deadline_ratio=1.5, checkpoint_gb=10
        ),
        replace(v100, name="v100-3z-tp1.5", zones=("us-east-1c", "us-east-2b", "us-west-2a"), deadline_ratio=1.5, is_optional=True),
        *(
            SpotWorkload(
                name=f"{market}-tp1.5",
                market=market,
                deadline_ratio=1.5,
                is_optional=True,
                rounding=True,
                work_h=20 if market == "gcp-cpu88-2023" else 40,
            )
            for market in MARKETS
            if market not in ("gcp-h100", "gcp-h100-gang16", "aws-v100")
        ),
    ]
    return {each.name: each for each in (*main, *optional)}


_JOB_KEYS = {
    each.name: each
    for each in fields(SpotWorkload)
    if each.name in ("zones", "work_h", "deadline_ratio", "cold_start_s", "checkpoint_gb", "probe_s", "rounding", "start_h", "seeds")
}
_TRACE_KEYS = {each.name: each for each in fields(Trace) if each.name not in ("path", "sha256")}


def adjusted(workload: SpotWorkload, params: Mapping[str, Any]) -> SpotWorkload:
    """Return the workload with parameters set by name (``--set key=value``); values may be text.

    Raises
    ------
    InputError
        For an unknown key or a value of the wrong kind.
    """
    job, trace = {}, {}
    for key, value in params.items():
        if key in _JOB_KEYS:
            job[key] = _value(key, value)
        elif key in _TRACE_KEYS and workload.trace is not None:
            trace[key] = _value(key, value)
        else:
            allowed = [*_JOB_KEYS, *(_TRACE_KEYS if workload.trace is not None else ())]
            raise InputError(f"no parameter {key!r} to set here; allowed: {', '.join(allowed)}.")
    if "start_h" in job and "seeds" not in job:
        job["seeds"] = 1  # one start, one trial
    if trace and workload.trace is not None:
        job["trace"] = replace(workload.trace, **trace)
    return replace(workload, **job)


def user_workload(path: Path, params: Mapping[str, Any]) -> SpotWorkload:
    """Return the workload of a user's trace: T/P 1.5 and 40 h of work unless set, and the trace read once to check it.

    Raises
    ------
    InputError
        Saying what to fix in the trace or the parameters.
    """
    digest = hashlib.sha256()  # part of the trace's identity: a file rewritten in a notebook is another trace
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path] if path.is_file() else []:
        digest.update(file.read_bytes())
    trace = Trace(str(path), digest.hexdigest())
    workload = SpotWorkload(name=path.stem or str(path), market="user", deadline_ratio=1.5, trace=trace)
    workload = adjusted(workload, params)
    workload.world(0)
    return workload


def _value(key: str, value: Any) -> Any:
    try:
        if key == "zones":
            return tuple(value.split(",")) if isinstance(value, str) else tuple(value)
        if key == "polarity":
            return str(value)
        if key == "rounding":
            return {"true": True, "false": False}[str(value).lower()]
        number = int(value) if key in ("seeds", "gang") else float(value)
    except (ValueError, TypeError, KeyError):
        kind = {"zones": "zone names separated by commas", "rounding": "true or false", "seeds": "a whole number", "gang": "a whole number"}
        raise InputError(f"{key} must be {kind.get(key, 'a number')}, got {value!r}.") from None
    least = 1 if key in ("seeds", "gang", "deadline_ratio") else 0
    if not np.isfinite(number) or number < least or (key == "work_h" and number == 0):
        raise InputError(f"{key} must be a finite number of at least {least}{' (and above 0)' if key == 'work_h' else ''}, got {value!r}.")
    return number
