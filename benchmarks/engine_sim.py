"""The simulator's speed: ``python benchmarks/engine_sim.py``.

Ratios from runs in turn on one machine: fast-forward against stepping the same engine through the same requests (the results are equal
to the bit), and the index of waiting requests against asking the cache again for everyone before each dispatch. And how long
a decision takes with many waiting.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from cloudchamber.core.registry import load_study
from cloudchamber.engine import FCFS, CostModelExecutor, EngineCore, LongestPrefixMatch, PagedKV, SchedulerPolicy, VirtualClock, drive
from cloudchamber.engine.prefillonly import CalibratedSJF

ROUNDS = 5


class Stepping(CostModelExecutor):
    """The cost model without fast-forward."""

    durations = None  # type: ignore[assignment]


class Asking(PagedKV):
    """The memory manager without an index: every lookup is a fresh match."""

    def lookup(self, r: Any) -> int:
        """Match again."""
        found = len(self._match(r, self._hashes(r, r.n_tokens)))
        return min(found, (r.n_tokens - 1) // self.block_tokens) * self.block_tokens

    def changed(self) -> set[int]:
        """Everyone."""
        return set(self.waiting)


def served(workload: Any, policy: SchedulerPolicy, executor: Any = CostModelExecutor, manager: Any = PagedKV) -> tuple[float, float]:
    """Serve one trial and return the seconds it took, and the mean latency it found."""
    trace = workload.trace(0)
    spec = workload.spec(trace)
    policy.reset(spec, np.random.default_rng(0))
    kv = manager(spec.blocks, spec.block_tokens)
    core = EngineCore(kv, policy, executor(spec.cost), VirtualClock(), spec, max_scored_len=int(trace.n_input.max()))
    kv.waiting = core._waiting
    requests = trace.requests()
    begin = time.perf_counter()
    drive(core, requests)
    return time.perf_counter() - begin, float(np.mean([r.finish_s - r.arrival for r in requests]))


def ratio(name: str, slow: Any, fast: Any) -> None:
    """Print how many times as long the one takes as the other, in turn."""
    times: list[float] = []
    for _ in range(ROUNDS):
        (slow_s, slow_mean), (fast_s, fast_mean) = slow(), fast()
        assert slow_mean == fast_mean, (slow_mean, fast_mean)
        times.append(slow_s / fast_s)
    print(f"{name}: {statistics.median(times):.1f} (of {ROUNDS}: {min(times):.1f} to {max(times):.1f}); {fast_s:.2f} s now")


def decision(policy: SchedulerPolicy, waiting: int) -> str:
    """Return the median and 99th percentile of processor time of a schedule() with so many waiting, one request a step."""
    study = load_study("engine.prefillonly")
    workload = study.adjusted(study.workloads()["post"], users=waiting // 50 + 8, load=1000)
    trace = workload.trace(0)
    spec = workload.spec(trace)
    policy.reset(spec, np.random.default_rng(0))
    core = EngineCore(PagedKV(spec.blocks, spec.block_tokens), policy, CostModelExecutor(spec.cost), VirtualClock(), spec)
    for r in trace.requests()[: waiting + 200]:
        core.add(r)
    took = []
    for _ in range(200):
        begin = time.thread_time()
        plan = core.schedule()
        took.append(1000 * (time.thread_time() - begin))
        core._apply(plan, core.executor.execute(plan))
    return f"{np.median(took):.2f} / {np.quantile(took, 0.99):.2f} ms"


def main() -> None:
    """Print the ratios."""
    engine, prefill = load_study("engine"), load_study("engine.prefillonly")
    quiet = engine.adjusted(engine.workloads()["poisson"], rate=0.5)
    busy = engine.workloads()["poisson"]
    for name, workload in (("0.5 requests/s", quiet), ("8 requests/s", busy)):
        ratio(
            f"stepping / fast-forward, {name}",
            lambda workload=workload: served(workload, FCFS(), Stepping),
            lambda workload=workload: served(workload, FCFS()),
        )
    post = prefill.adjusted(prefill.workloads()["post"], users=10)
    ratio(
        "asking the cache again / index of waiting requests",
        lambda: served(post, CalibratedSJF(), manager=Asking),
        lambda: served(post, CalibratedSJF()),
    )
    for waiting in (1000, 10_000):
        for policy in (FCFS(), LongestPrefixMatch(fcfs_above=100_000), CalibratedSJF()):
            print(f"schedule() with {waiting} waiting, {policy!r}: median / p99 {decision(policy, waiting)}")


if __name__ == "__main__":
    main()
