"""The study ``transactions.online``: who is let into a store next, on a stream of conflicting transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Study, Workload, rng_of

from .claims import CLAIMS
from .model import OnlineScheduler, OnlineSpec
from .simulator import simulate
from .store import PROTOCOLS, Protocol, unserialisable
from .world import Call, World, stream


@dataclass(frozen=True, kw_only=True)
class OnlineWorkload(Workload):
    """A stream of stored procedures on a store.

    Parameters
    ----------
    n : int
        Transactions; a new one arrives whenever the window has room.
    protocol : {"mvtso", "mvschedo", "2pl", "occ"}
        How the store keeps histories serialisable.
    workers, window : int
    service_s : float
        Time of one access.
    ops, keys : int
        Accesses of a transaction; keys there are.
    theta, write_share : float
        Exponent of the Zipf popularity of keys; probability that an access writes.
    surprise : float
        Probability that an access goes to another key than usual for its kind and argument.
    """

    n: int = 1000
    protocol: Protocol = "mvschedo"
    workers: int = 16
    window: int = 64
    service_s: float = 200e-6
    ops: int = 8
    keys: int = 1000
    theta: float = 1.1
    write_share: float = 0.5
    surprise: float = 0.05

    @property
    def summary(self) -> str:
        """The store and its stream."""
        return (
            f"{self.n} transactions of {self.ops} accesses on {self.keys} keys, Zipf {self.theta:g}, {self.write_share:.0%} writes; "
            f"{self.protocol}, {self.workers} workers, {self.service_s * 1e6:g} µs an access."
        )

    def calls(self, seed: int) -> list[Call]:
        """Return the seed's stream."""
        drawn = rng_of("transactions.online.stream", self.name, seed)
        return stream(
            self.n, ops=self.ops, keys=self.keys, theta=self.theta, write_share=self.write_share, surprise=self.surprise, rng=drawn
        )

    def world(self, seed: int) -> World:
        """Return the seed's stream in front of an empty store."""
        return World(self.calls(seed), OnlineSpec(self.workers, self.service_s, self.window), self.protocol)


class OnlineStudy(Study):
    """The study transactions.online: which waiting transactions enter a multi-version store next, and in which order."""

    name = "transactions.online"
    title = "Online transaction scheduling"
    systems = ("R-SMF", "MVSchedO")
    papers = ("Towards Optimal Transaction Scheduling",)
    protocol = OnlineScheduler
    metrics = (
        Metric("throughput_tps", "1/s", "max"),
        Metric("aborts_per_commit", "1"),
        Metric("mean_latency_ms", "ms"),
        Metric("p99_latency_ms", "ms"),
        Metric("timeouts", "1"),
        Metric("forced", "1"),
    )
    floor = ("RandomOnline",)
    claims = CLAIMS
    notes = (
        "The bound is the throughput of the same accesses without any conflict: all workers busy all the time.",
        "The simulated store is the real one on a clock of events, without interpreter, log or network: see `chamber run transactions`.",
        "Every history is checked to be serialisable in the store's order; one that is not makes the trial void.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in policies."""
        from . import FIFOOnline, LockAware, RandomOnline, SMFOnline

        return {cls.__name__: cls for cls in (SMFOnline, LockAware, FIFOOnline, RandomOnline)}

    def workloads(self) -> Mapping[str, OnlineWorkload]:
        """Contention high, low and none, under plain timestamp ordering and under the scheduled one; other protocols by name."""
        base = OnlineWorkload(name="zipf1.1", is_generated=True, seeds=6)
        made = [
            *(
                replace(base, name=f"zipf{theta:g}-{protocol}", theta=theta, protocol=protocol)
                for theta in (1.1, 0.0)
                for protocol in ("mvtso", "mvschedo")
            ),
            *(replace(base, name=f"zipf1.1-{protocol}", protocol=protocol, n=300, is_optional=True) for protocol in ("2pl", "occ")),
            replace(base, name="smoke", n=60, keys=60, seeds=2, is_optional=True),
        ]
        return {each.name: each for each in made}

    def adjusted(self, workload: Any, **params: Any) -> OnlineWorkload:
        """Return a workload with parameters changed."""
        return adjusted(workload, params)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Run one stream to its end."""
        world = workload.world(seed)
        policy.reset(world.spec, rng_of(self.name, workload.name, seed))
        return outcome_of(world, simulate(world, policy))

    def bound(self, workload: Any, seed: int) -> Bound:
        """The throughput without conflicts."""
        calls = workload.calls(seed)
        lengths = [len(call.accesses) for call in calls]
        return Bound(len(calls) / (workload.service_s * max(*lengths, sum(lengths) / workload.workers)), False)


def outcome_of(world: World, spent_s: float) -> Outcome:
    """Return a finished run's metrics, its history checked."""
    tally = world.tally
    latency_ms = 1000 * np.array(tally.latency_s)
    metrics = {
        "throughput_tps": tally.committed / spent_s,
        "aborts_per_commit": tally.aborts / tally.committed,
        "mean_latency_ms": float(latency_ms.mean()),
        "p99_latency_ms": float(np.quantile(latency_ms, 0.99)),
        "timeouts": float(tally.timeouts),
        "forced": float(tally.forced),
    }
    feedback = (
        f"{metrics['throughput_tps']:.0f} transactions/s with {metrics['aborts_per_commit']:.2f} aborts per commit; "
        f"99 % of them within {metrics['p99_latency_ms']:.1f} ms of their arrival."
    )
    return Outcome(metrics, tuple(unserialisable(world.store.history)[:3]), {"latency_ms": latency_ms}, feedback)


_KEYS = {each.name: each.type for each in fields(OnlineWorkload) if each.name not in ("name", "is_optional", "is_generated", "is_finite")}
_RANGES = {"write_share": (0, 1), "surprise": (0, 1), "theta": (0, 5), "service_s": (1e-9, 10), "ops": (1, 100), "keys": (1, 100_000)}


def adjusted(workload: OnlineWorkload, params: Mapping[str, Any]) -> OnlineWorkload:
    """Return the workload with parameters set by name (``--set key=value``); values may be text.

    Raises
    ------
    InputError
        For an unknown key or a value of the wrong kind.
    """
    made: dict[str, Any] = {}
    for key, value in params.items():
        if key not in _KEYS:
            raise InputError(f"no parameter {key!r} to set here; allowed: {', '.join(_KEYS)}.")
        if key == "protocol":
            if value not in PROTOCOLS:
                raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {value!r}.")
            made[key] = value
            continue
        low, high = _RANGES.get(key, (1, 1_000_000))
        try:
            made[key] = (int if _KEYS[key] == "int" else float)(value)
        except (TypeError, ValueError):
            made[key] = np.nan
        if not low <= made[key] <= high:
            raise InputError(
                f"{key} must be {'a whole number' if _KEYS[key] == 'int' else 'a number'} from {low:g} to {high:g}, got {value!r}."
            )
    return replace(workload, **made)
