"""The published score of every policy: 1 / mean kvpr over the published set. Run ``python -m cloudchamber.placement.score --json``."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WORKLOAD = "prism"


def scores(results: Results, workload: str = WORKLOAD) -> dict[str, float]:
    """Return 1 / mean kvpr of every policy without a void trial, and of the bound, best first."""
    found = {}
    for policy in dict.fromkeys(trial.policy for trial in results.trials):
        trials = results.of(workload, policy)
        if trials and not any(trial.outcome.is_void for trial in trials):
            found[policy] = _inverse_mean([trial.outcome.metrics["kvpr"] for trial in trials])
            found["optimum"] = _inverse_mean([trial.bound.value for trial in trials if trial.bound])
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row per policy and bound, in the form that claims read; the set is one trial."""
    from .optimum import alone, mediant

    workload: Any = results.workloads[WORKLOAD]
    loose = _inverse_mean([max(mediant(each), alone(each)) for each in map(workload.instance, range(workload.seeds))])
    same = {"study": "placement", "workload": WORKLOAD, "seed": 0, "evidence": "simulated", "generated": workload.is_generated}
    every = {"mediant": loose, **scores(results)}
    return [{**same, "policy": policy, "void": None, "score": score, "bound": every["optimum"]} for policy, score in every.items()]


def _inverse_mean(values: list[float]) -> float:
    return len(values) / math.fsum(values)


def main() -> None:
    """Write the rows, or a table of the scores."""
    from cloudchamber import study

    results = study("placement", workloads=[WORKLOAD], n_jobs=1)
    for row in rows(results):
        print(json.dumps(row) if "--json" in sys.argv[1:] else f"{row['policy']:<16}{row['score']:8.2f}")


if __name__ == "__main__":
    main()
