"""Speed of the placement module, side by side with what one would use instead, in one run.

* the exact optimum against OR-Tools' CP-SAT on the same instances (skipped where OR-Tools is not installed);
* the compiled annealing against the same walk in plain Python;
* the checked pressures of the world against the bare definition in plain Python.

Run: ``.venv/bin/python benchmarks/placement.py``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.placement.worlds import kvpr

from cloudchamber.core.registry import load_study
from cloudchamber.core.results import Table
from cloudchamber.placement import Annealing, GreedyMixed, Placement, least_kvpr, measured, run
from cloudchamber.placement.policies.annealing import annealed

REPEATS = 3


def interleaved(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each call, taken in turn, after one round that is not counted."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS + 1):
        for work, found in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return [statistics.median(each[1:]) for each in seconds]


def by_cp_sat(instance) -> float:
    """The optimum by CP-SAT: bisect on the pressure, demands in units of 1/2520 (SLOs are 5 to 9)."""
    from ortools.sat.python import cp_model

    low, high = 0.0, float(run(GreedyMixed(), instance, np.random.default_rng(0)).kvpr.max())
    while high - low > 1e-6 * high:
        guess, scale = (low + high) / 2, 10**7
        model = cp_model.CpModel()
        put = [[model.new_bool_var("") for _ in range(instance.gpus)] for _ in instance.models]
        weight = [round(scale * (each.demand + guess * each.size_gb)) for each in instance.models]
        for row in put:
            model.add_exactly_one(row)
        for gpu in range(instance.gpus):
            model.add(sum(w * row[gpu] for w, row in zip(weight, put, strict=True)) <= round(scale * guess * instance.gpu_memory_gb))
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        low, high = (low, guess) if solver.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE) else (guess, high)
    return high


def main() -> None:
    """Print every figure."""
    subject = load_study("placement")
    workload, note = subject.ready(subject.workloads()["prism"])
    print(note or "published instances", file=sys.stderr)
    instances = [workload.instance(seed) for seed in range(12)]
    rows = []

    def exact() -> list[float]:
        least_kvpr.cache_clear()
        return [least_kvpr(each).kvpr for each in instances]

    try:
        import ortools  # noqa: F401

        ours, theirs = interleaved(exact, lambda: [by_cp_sat(each) for each in instances])
        assert np.allclose(exact(), [by_cp_sat(each) for each in instances], rtol=1e-5)
        rows.append(("exact optimum, 12 instances", f"{ours:.2f} s", f"CP-SAT, one worker {theirs:.2f} s", f"{theirs / ours:.1f}"))
    except ImportError:
        print("OR-Tools is not installed: no peer for the optimum", file=sys.stderr)

    each = instances[0]
    start = np.array(GreedyMixed().place(each).gpu_of)
    demand, size_gb = (np.array([getattr(model, key) for model in each.models]) for key in ("demand", "size_gb"))
    draws = np.random.default_rng(0).random((Annealing().moves, 4))
    walk = (demand, size_gb, each.gpus, each.gpu_memory_gb, draws, 0.1, 0.001)
    ours, theirs = interleaved(lambda: annealed(start.copy(), *walk), lambda: annealed.py_func(start.copy(), *walk))
    rows.append(("20,000 annealing moves", f"{ours * 1e3:.1f} ms", f"plain Python {theirs * 1e3:.0f} ms", f"{theirs / ours:.0f}"))

    answer = Placement(tuple(start.tolist()))
    ours, theirs = interleaved(
        lambda: [measured(answer, each) for _ in range(1000)], lambda: [kvpr(each, answer.gpu_of) for _ in range(1000)]
    )
    rows.append(
        ("checked pressure of a placement", f"{ours * 1e3:.0f} µs", f"definition, unchecked {theirs * 1e3:.0f} µs", f"{theirs / ours:.2f}")
    )
    print(Table(("what", "ours", "against", "ratio"), tuple(rows)))


if __name__ == "__main__":
    main()
