"""What the offline search finds, beside random restart and best-of-n at equal evaluations, judged on trials none of them has seen.

For each study one starting policy, with parts of sibling policies left out, so that what is found was not there before. Starts are
published baselines: Prism's greedy, Uniform Progress in one zone ("Can't Be Late"), Cloudcast's cheapest paths, sampled shortest makespan
first, and the deal of experts an earlier search found. Each leaves room below the bound, the last hardly any. Rows of ``--json`` are
held-out trials: of the start, the winner of each method, and for ``placement`` also each of the 50 published instances, of which the
search trains on 25, chooses by 12 and is judged on 12.

Run: ``.venv/bin/python benchmarks/evolve_studies.py [STUDY]... [--json] [--seeds N | --seed S]`` (minutes per study and seed).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cloudchamber.core.registry import load_study
from cloudchamber.core.results import Table
from cloudchamber.evolve import Budget, Search, Settings
from cloudchamber.evolve.splits import Point
from cloudchamber.evolve.trials import Trial
from cloudchamber.evolve.verdict import judge


@dataclass(frozen=True)
class Case:
    """One study, its start, and how much of it."""

    start: str
    workloads: tuple[str, ...]
    trials: tuple[int, int, int]
    evaluations: int
    seeds: int = 1


CASES = {
    "placement": Case("PrismGreedy", ("prism",), (25, 12, 12), 500, seeds=5),
    "spot": Case("UniformProgress", ("h100-gang16-tp1.1", "v100-9z-tp2.0"), (6, 4, 24), 150),
    "broadcast": Case("DijkstraPaths", ("drawn",), (6, 4, 24), 150),
    "transactions": Case("SMF", ("ycsb",), (6, 4, 24), 150),
    "moe.balance": Case("Zigzag", ("drift-64e",), (6, 4, 24), 150),
}
METHODS: dict[str, dict[str, Any]] = {
    "evolved": {},
    "random restart": {"proposers": ("restart",), "archive": "top"},
    "best-of-n": {"archive": "starts"},
}


def search(study: str, case: Case, method: str, seed: int) -> Search:
    """Run one method."""
    settings = Settings(start=case.start, workloads=case.workloads, trials=case.trials, seed=seed, siblings=False, **METHODS[method])
    found = Search(study, settings, budget=Budget(case.evaluations))
    found.run()
    return found


def rows(name: str, case: Case, seeds: Iterable[int], methods: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Held-out trials of every method's winner, and of the start."""
    for seed in seeds:
        for method in methods:
            began = time.monotonic()
            found = search(name, case, method, seed)
            best = found.best()
            verdict = judge(found)[0]
            print(f"{name}, seed {seed}, {method}: {verdict}; {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            if best is None:
                continue
            subjects = {method: best.source} | ({case.start: found.starts[0].source} if method == methods[0] else {})
            for policy, source in subjects.items():
                for number, point in enumerate(found.splits.held_out):
                    yield row(found, f"{name}, held out", policy, 1000 * seed + number, found.evaluator.opener.run(source, point))
            if name == "placement":
                prism, _ = found.study.ready(found.study.workloads()["prism"])
                for policy, source in subjects.items():
                    for instance in range(prism.seeds):
                        trial = found.evaluator.opener.run(source, Point("held-out", prism, instance, 0))
                        yield row(found, f"prism, run {seed}", policy, instance, trial)
            found.close()


def row(found: Search, workload: str, policy: str, seed: int, trial: Trial) -> dict[str, Any]:
    """One trial as ``chamber study --json`` writes it."""
    metrics = {metric.name: trial.metrics.get(metric.name) for metric in found.study.metrics}
    common = {"study": found.study.name, "workload": workload, "policy": policy, "seed": seed, **metrics, "bound": trial.bound}
    return common | {"ratio": None, "void": trial.reason or None, "generated": False, "evidence": "simulated", "jail": found.settings.jail}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", default=list(CASES))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--seed", type=int, help="one run seed instead of 1 to SEEDS")
    parser.add_argument("--evaluations", type=int)
    parser.add_argument("--only", help="one method: evolved, 'random restart' or best-of-n")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    table: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in options.studies:
        case = CASES[name] if options.evaluations is None else Case(**vars(CASES[name]) | {"evaluations": options.evaluations})
        seeds = [options.seed] if options.seed is not None else range(1, (options.seeds or case.seeds) + 1)
        for each in rows(name, case, seeds, (options.only,) if options.only else tuple(METHODS)):
            table.setdefault((each["workload"], each["policy"]), []).append(each)
            if options.json:
                print(json.dumps(each), flush=True)
    if not options.json:
        print(Table(("workload", "policy", "mean objective", "1 / mean"), tuple(line(*key, found) for key, found in table.items())))


def line(workload: str, policy: str, found: list[dict[str, Any]]) -> tuple[str, ...]:
    """A row of the table."""
    metric = load_study(found[0]["study"]).objective.name
    void = sum(each["void"] is not None for each in found)
    if void:
        return (workload, policy, f"void {void}/{len(found)}", "")
    mean = sum(each[metric] for each in found) / len(found)
    return (workload, policy, f"{mean:.5g}", f"{1 / mean:.4g}")


if __name__ == "__main__":
    main()
