"""The published score of every policy: its bill over all five jobs. Run ``python -m cloudchamber.broadcast.totals --json``."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WORKLOADS = ("cloudcast", "cloudcast-shared")


def totals(results: Results, workload: str) -> dict[str, float]:
    """Return the sum over jobs of every policy without a void trial, and of the bound, cheapest first."""
    found = {}
    for policy in dict.fromkeys(trial.policy for trial in results.trials):
        trials = results.of(workload, policy)
        if trials and not any(trial.outcome.is_void for trial in trials):
            found[policy] = math.fsum(trial.outcome.metrics["cost_usd"] for trial in trials)
            found["bound"] = math.fsum(trial.bound.value for trial in trials if trial.bound)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row per workload and policy (bound and least egress too), in the form that claims read; the five jobs are one trial."""
    from .optimum import least_cost

    made = []
    for name in WORKLOADS:
        workload: Any = results.workloads[name]
        egress = math.fsum(least_cost(*workload.world(seed)).egress_usd for seed in range(workload.seeds))
        same = {"study": "broadcast", "workload": name, "seed": 0, "evidence": "simulated", "generated": workload.is_generated}
        every = {"egress-bound": egress, **totals(results, name)}
        made += [{**same, "policy": policy, "void": None, "total_usd": total, "bound": every["bound"]} for policy, total in every.items()]
    return made


def main() -> None:
    """Write the rows, or a table of the totals."""
    from cloudchamber import study

    results = study("broadcast", workloads=list(WORKLOADS), n_jobs=1)
    for row in rows(results):
        print(json.dumps(row) if "--json" in sys.argv[1:] else f"{row['workload']:<18}{row['policy']:<20}{row['total_usd']:10.2f}")


if __name__ == "__main__":
    main()
