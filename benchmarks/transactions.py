"""Speed of the transactions module, side by side with what one would use instead, in one run.

* the compiled evaluator against plain Python that simulates the whole prefix again for each transaction appended;
* SMF on a thousand transactions; local search on the three batches at 20 million placements; the proof of an optimum of eight.

Run: ``.venv/bin/python benchmarks/transactions.py`` (half a minute). Bars: >= 200,000 placements/s and >= 20 x the re-simulating one,
SMF of 1,000 <= 0.5 s, local search <= 10 s a batch, an optimum of eight <= 60 s.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from cloudchamber.core.registry import load_study
from cloudchamber.core.results import Table
from cloudchamber.transactions import SMF, BatchSpec, LocalSearch, Shape, batch_of, makespan, optimal_order
from cloudchamber.transactions.generators import GENERATORS

REPEATS = 5


def interleaved(*works: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Median seconds of each call, taken in turn, after one of each that is not counted."""
    for work in works:
        work()
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, found in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in seconds]


def resimulated(rows: list[list[tuple[str, int, int]]], lengths: list[int], order: list[int]) -> int:
    """The makespan by plain Python that simulates the whole prefix again for every transaction appended."""
    end = 0
    for count in range(1, len(order) + 1):
        wrote: dict[int, int] = {}
        read: dict[int, int] = {}
        end = 0
        for t in order[:count]:
            free = [max(wrote.get(k, -1), read.get(k, -1) if kind == "w" else -1) + 1 - p for kind, k, p in rows[t]]
            start = max([0, *free])
            for kind, k, p in rows[t]:
                last = wrote if kind == "w" else read
                last[k] = max(last.get(k, -1), start + p)
            end = max(end, start + lengths[t])
    return end


def evaluators() -> list[tuple[str, ...]]:
    """Placements per second of a batch of each shape, compiled against plain Python that simulates the prefix again."""
    lines = []
    for kind in ("w1", "w2", "w3"):
        batch = batch_of(GENERATORS[kind](Shape(), np.random.default_rng(0)))
        order, rows, lengths = list(range(len(batch))), [batch.accesses(t) for t in range(len(batch))], batch.length.tolist()
        assert makespan(batch, order) == resimulated(rows, lengths, order)
        ours, theirs = interleaved(
            lambda b=batch, o=order: [makespan(b, o) for _ in range(20)], lambda r=rows, n=lengths, o=order: resimulated(r, n, o)
        )
        ours /= 20
        lines.append(
            (f"evaluate {kind}-like", f"{100 / ours:,.0f} placements/s", f"re-simulating {100 / theirs:,.0f}", f"{theirs / ours:,.0f}")
        )
    return lines


def asked(policy: object, batch: object, budget: int) -> object:
    """The order of a policy."""
    policy.reset(BatchSpec(budget), np.random.default_rng(0))
    return policy.order(batch)


def main() -> None:
    """Print every figure with its bar."""
    rows = evaluators()
    large = batch_of(GENERATORS["ycsb"](Shape(n=1000), np.random.default_rng(0)))
    (smf_s,) = interleaved(lambda: asked(SMF(10), large, 10**6))
    rows.append(("SMF(10), 1,000 transactions", f"{smf_s:.2f} s", "bar 0.5 s", f"{0.5 / smf_s:.1f}"))
    study = load_study("transactions")
    ready = [study.ready(study.workloads()[name]) for name in ("w1", "w2", "w3")]
    print(next((note for _, note in ready if note), "real batches"), file=sys.stderr)
    for workload, _ in ready:
        world = workload.world(0)
        asked(LocalSearch(), world.batch, 1000)
        start = time.perf_counter()
        order = asked(LocalSearch(), world.batch, 20_000_000)
        spent_s = time.perf_counter() - start
        least = world.schedule(order).makespan
        rows.append((f"LocalSearch, {workload.name}: {least} slots", f"{spent_s:.1f} s", "bar 10 s", f"{10 / spent_s:.1f}"))
    tiny = study.workloads()["tiny"].world(0).batch
    (proof_s,) = interleaved(lambda: optimal_order(tiny))
    rows.append(("optimum of 8, proven", f"{proof_s:.2f} s", "bar 60 s", f"{60 / proof_s:,.0f}"))
    print(Table(("what", "ours", "against", "ratio"), tuple(rows)))


if __name__ == "__main__":
    main()
