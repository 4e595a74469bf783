"""Workloads: which load, on which cluster, predicted how, planned when. The named ones, a user's own history, and their trials."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError, unknown
from cloudchamber.core.study import Workload, rng_of, start_of

from .histories import SCENARIOS, Popularity, calibrated, read_history, windows_of
from .model import ClusterSpec
from .optimum import best_plan, is_small, least_top_load
from .predictors import PREDICTORS, Last, Predictor
from .simulator import Run, Simulator, StepCost
from .triggers import TRIGGERS, Every, Trigger


@dataclass(frozen=True)
class Trace:
    """A user's load history: where it lies, and which part of its windows is used."""

    path: str
    sha256: str = ""
    lo: float = 0.0
    hi: float = 1.0


@dataclass(frozen=True, kw_only=True)
class BalanceWorkload(Workload):
    """One model on one cluster, served window after window.

    Parameters
    ----------
    cluster : ClusterSpec
    windows : int
        Windows a trial is judged on; one more is seen before the first plan.
    popularity : Popularity
        The generator of the load; unused with a trace.
    predictor : Predictor
        Makes the load a policy is shown.
    trigger : Trigger
        When a policy is asked.
    cost : StepCost
    trace : Trace or None
        A user's own history.
    renaming : int or None
        Seed of a permutation of layers, groups and the experts in them.
    """

    cluster: ClusterSpec
    windows: int = 8
    popularity: Popularity = field(default_factory=Popularity)
    predictor: Predictor = field(default_factory=Last)
    trigger: Trigger = field(default_factory=Every)
    cost: StepCost = field(default_factory=StepCost)
    trace: Trace | None = None
    renaming: int | None = None

    @property
    def summary(self) -> str:
        """The cluster, and where the load comes from."""
        c, p = self.cluster, self.popularity
        load = self.trace.path if self.trace is not None else f"generated, {p.scenario}, log-normal with alpha {p.alpha:g}"
        nodes = f" on {c.nodes} nodes" if c.nodes > 1 else ""
        return f"{c.layers} layers of {c.experts} experts in {c.slots} slots, {c.devices} GPUs{nodes}, {self.windows} windows; load {load}."

    def world(self, seed: int) -> World:
        """Return the seed's trial."""
        return _world(self, seed)

    def part(self, lo: float, hi: float) -> BalanceWorkload | None:
        """The share of a user's history in time; a generator returns itself."""
        if self.trace is None:
            return self
        width = self.trace.hi - self.trace.lo
        cut = replace(self.trace, lo=self.trace.lo + lo * width, hi=self.trace.lo + hi * width)
        there = len(_cut(cut, self.cluster.steps))
        if there < 2:
            return None
        windows = min(self.windows, there - 1)
        return replace(self, trace=cut, windows=windows, seeds=min(self.seeds, there - windows))

    def twin(self) -> BalanceWorkload:
        """A generator with the statistics of the user's history; itself if it is one."""
        if self.trace is None:
            return self
        popularity = calibrated(_cut(self.trace, self.cluster.steps))
        return replace(self, trace=None, is_generated=True, popularity=popularity, seeds=12)

    def renamed(self, rng: np.random.Generator) -> BalanceWorkload:
        """The same loads with layers, groups and the experts in them in another order."""
        return replace(self, renaming=int(rng.integers(2**31)))


@dataclass(frozen=True, eq=False)
class World:
    """One trial: its simulator and what no plan can beat."""

    simulator: Simulator

    @cached_property
    def bound(self) -> float:
        """Balancedness that no plans can exceed."""
        judged, spec = self.simulator.history[1:], self.simulator.spec
        top = self.optimum.device_load.max(axis=2) if self.optimum is not None else least_top_load(judged, spec)
        return balancedness(judged.sum(axis=2) / spec.devices, top)

    @cached_property
    def optimum(self) -> Run | None:
        """The best plans for loads known beforehand, where layers are small enough to find them."""
        if not is_small(self.simulator.spec):
            return None
        every = Simulator(self.simulator.history, self.simulator.spec, cost=self.simulator.cost)
        return every.replay([best_plan(load, every.spec) for load in every.history[1:]])


def balancedness(mean: np.ndarray, top: np.ndarray) -> float:
    """Sum of mean device loads over that of the largest; 1 where there was no load at all."""
    return float(mean.sum() / top.sum()) if top.any() else 1.0


@lru_cache(maxsize=4)
def _world(workload: BalanceWorkload, seed: int) -> World:
    spec, count = workload.cluster, workload.windows + 1
    if workload.trace is None:
        rng = rng_of("moe.balance.history", workload.name, seed)
        history = workload.popularity.history(rng, windows=count, layers=spec.layers, experts=spec.experts, groups=spec.groups)
    else:
        whole = _cut(workload.trace, spec.steps)
        if len(whole) < count:
            raise InputError(
                f"{workload.trace.path} has {len(whole)} windows of {spec.steps} steps here, {workload.windows} judged ones need {count}; "
                "--set windows or steps lower."
            )
        start = start_of(seed, len(whole) - count + 1)
        history = whole[start : start + count]
    if workload.renaming is not None:
        history = renamed(history, spec.groups, np.random.default_rng(workload.renaming))
    return World(Simulator(history, spec, predictor=workload.predictor, trigger=workload.trigger, cost=workload.cost))


def renamed(history: np.ndarray, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Return the history with layers, groups, and experts within groups permuted."""
    _, layers, experts = history.shape
    size = experts // groups
    order = (rng.permutation(groups)[:, None] * size + np.array([rng.permutation(size) for _ in range(groups)])).ravel()
    return history[:, rng.permutation(layers)][:, :, order]


@lru_cache(maxsize=2)
def _read(path: str, sha256: str) -> np.ndarray:
    return read_history(Path(path))


@lru_cache(maxsize=4)
def _cut(trace: Trace, steps: int) -> np.ndarray:
    """The windows of the part [lo, hi) of a history."""
    windows = windows_of(_read(trace.path, trace.sha256), steps)
    return windows[round(trace.lo * len(windows)) : round(trace.hi * len(windows))]


def named_workloads() -> Mapping[str, BalanceWorkload]:
    """The workloads of the study, by name."""
    moderate = ClusterSpec(layers=4, experts=64, slots=80, devices=8, nodes=2, groups=8)
    small = ClusterSpec(layers=2, experts=16, slots=20, devices=4)
    large = ClusterSpec(layers=58, experts=256, slots=288, devices=32, nodes=4, groups=8)

    def made(name: str, cluster: ClusterSpec, popularity: Popularity, **rest: Any) -> BalanceWorkload:
        tokens = 100 * 1024 * cluster.devices  # 1,024 tokens per step and device
        return BalanceWorkload(name=name, cluster=cluster, popularity=replace(popularity, tokens=tokens), is_generated=True, **rest)

    main = [
        made("drift-64e", moderate, Popularity()),
        made("skew-64e", moderate, Popularity(alpha=1.5)),
        made("regime-64e", moderate, Popularity(scenario="regime")),
        made("daynight-64e", moderate, Popularity(scenario="daynight", period=8)),
        made("sparse-64e", moderate, Popularity(scenario="sparse")),
        made("small-16e", small, Popularity(), windows=6),
    ]
    optional = [
        made("smoke", ClusterSpec(layers=2, experts=8, slots=12, devices=4, nodes=2, groups=2), Popularity(), windows=3, seeds=2),
        made("onehot-64e", moderate, Popularity(scenario="onehot")),
        made("mild-64e", moderate, Popularity(alpha=0.5)),
        made("v3-58x256", large, Popularity(), seeds=3),
        made("v3-58x256-mild", large, Popularity(alpha=0.5), seeds=3),
        made("v3-58x256-skew", large, Popularity(alpha=1.5), seeds=3),
        made("v3-58x256-long", large, Popularity(), windows=50, seeds=3),
    ]
    return {each.name: each for each in (*main, *(replace(each, is_optional=True) for each in optional))}


_CLUSTER_KEYS = tuple(ClusterSpec.__struct_fields__)
_OWN_KEYS = ("windows", "seeds", "predictor", "trigger")
_POPULARITY_KEYS = tuple(each.name for each in fields(Popularity))
_WHOLE = ("slots", "devices", "nodes", "groups", "layers", "experts", "steps", "windows", "seeds", "period")


def adjusted(workload: BalanceWorkload, params: Mapping[str, Any]) -> BalanceWorkload:
    """Return the workload with parameters set by name (``--set key=value``); values may be text.

    ``predictor`` is last, ewma, mean or quantile, ``trigger`` every, threshold or benefit; a colon gives them another number: ``ewma:0.3``.

    Raises
    ------
    InputError
        For an unknown key or a value of the wrong kind.
    """
    is_own = workload.trace is not None
    fixed = ("layers", "experts") if is_own else ()
    allowed = [key for key in (*_CLUSTER_KEYS, *_OWN_KEYS, *(() if is_own else _POPULARITY_KEYS)) if key not in fixed]
    cluster: dict[str, Any] = {}
    own: dict[str, Any] = {}
    popularity: dict[str, Any] = {}
    for key, value in params.items():
        if key not in allowed:
            raise InputError(f"no parameter {key!r} to set here; allowed: {', '.join(allowed)}.")
        home = cluster if key in _CLUSTER_KEYS else own if key in _OWN_KEYS else popularity
        home[key] = _value(key, value)
    facts = {key: getattr(workload.cluster, key) for key in _CLUSTER_KEYS} | cluster
    return replace(workload, cluster=ClusterSpec(**facts), popularity=replace(workload.popularity, **popularity), **own)


def _value(key: str, value: Any) -> Any:
    if key in ("predictor", "trigger"):
        return _named(key, value)
    if key == "scenario":
        if value not in SCENARIOS:
            raise unknown("scenario", str(value), SCENARIOS)
        return value
    is_whole, least = key in _WHOLE, int(key in ("windows", "seeds", "period"))
    try:
        number = int(value) if is_whole else float(value)
    except (ValueError, TypeError):
        raise InputError(f"{key} must be a {'whole ' if is_whole else ''}number, got {value!r}.") from None
    most = 1.0 if key == "rho" else np.inf
    if not np.isfinite(number) or not least <= number <= most:
        raise InputError(f"{key} must be a finite number of at least {least}{' and at most 1' * (most == 1)}, got {value!r}.")
    return number


def _named(kind: str, value: Any) -> Any:
    """A predictor or trigger from ``name`` or ``name:number``."""
    if not isinstance(value, str):
        return value
    known: Mapping[str, Any] = PREDICTORS if kind == "predictor" else TRIGGERS
    name, colon, number = value.partition(":")
    if name not in known:
        raise unknown(kind, name, known)
    if not colon:
        return known[name]()
    names = [each.name for each in fields(known[name])]
    try:
        setting = float(number)
    except ValueError:
        setting = -1.0
    high = 1.0 if names and names[0] in ("weight", "q", "balancedness") else np.inf
    if not names or not 0 < setting <= high:
        takes = f"takes a number above 0{' and at most 1' * (high == 1)}" if names else "takes no number"
        raise InputError(f"{kind} {name} {takes}, got {value!r}.")
    return known[name](setting)


def user_workload(path: Path, params: Mapping[str, Any]) -> BalanceWorkload:
    """Return the workload of a user's load history, read once to check it.

    Unless set: 32 GPUs on 4 nodes and 8 groups for 256 experts or more, else 8 GPUs; an eighth of the experts as spare slots (rounded up
    to whole devices); windows of 100 steps where the history has at least three, else each step is a window.

    Raises
    ------
    InputError
        Saying what to fix in the history or the parameters.
    """
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""  # a file rewritten in a notebook is another trace
    steps, layers, experts = _read(str(path), sha256).shape
    is_large = experts >= 256
    devices = _value("devices", params.get("devices", 32 if is_large else 8))
    spare = -(-experts * 9 // 8 // max(devices, 1)) * max(devices, 1)
    cluster = {
        "layers": layers,
        "experts": experts,
        "slots": max(spare, -(-experts // max(devices, 1)) * max(devices, 1)),
        "devices": devices,
        "nodes": 4 if is_large and devices % 4 == 0 else 1,
        "groups": 8 if is_large and experts % 8 == 0 else 1,
        "steps": 100 if steps >= 300 else 1,
    }
    cluster |= {key: _value(key, value) for key, value in params.items() if key in _CLUSTER_KEYS and key not in ("layers", "experts")}
    there = steps // cluster["steps"] if cluster["steps"] else 0
    windows = _value("windows", params.get("windows", max(1, min(8, there - 1))))
    workload = BalanceWorkload(
        name=path.stem or str(path),
        cluster=ClusterSpec(**cluster),
        windows=windows,
        seeds=max(1, min(12, there - windows)),
        trace=Trace(str(path), sha256),
    )
    workload = adjusted(workload, params)
    workload.world(0)
    return workload
