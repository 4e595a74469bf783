"""What the offline search finds, beside random restart and best-of-n at equal evaluations, judged on trials none of them has seen.

For each study one starting policy, with parts of sibling policies left out, so that what is found was not there before. Starts are
known baselines: Prism's greedy, Uniform Progress by availability (which pays dearly for probes), Cloudcast's cheapest paths, sampled
shortest makespan first, and the deal of experts an earlier search found. Spot's and transactions' were picked after others had
failed, knowing that other policies of the study are better there: docs/evolve-honest.md says what was tried.
Rows of ``--json`` are held-out trials: of the start, the winner of each method, and for ``placement`` also each of the 50 published
instances, of which the search trains on 25, chooses by 12 and is judged on 12.

Run: ``.venv/bin/python benchmarks/evolve_studies.py [STUDY]... [--json] [--seeds N | --seed S] [--fast]``. Jailed, 500 evaluations
took eight minutes on two busy cores, with ``--fast`` one or two: candidates then run in this process under an alarm, since mutations of a
policy may hang but do not attack.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cloudchamber.core.registry import load_study
from cloudchamber.core.results import Table
from cloudchamber.evolve import Budget, Search, Settings
from cloudchamber.evolve import search as evolve_search
from cloudchamber.evolve.splits import Point
from cloudchamber.evolve.trials import Opener, Trial, bound_of
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
    "spot": Case("UniformProgressAvailability", ("h100-gang16-tp1.1", "v100-9z-tp2.0"), (6, 4, 24), 100),
    "broadcast": Case("DijkstraPaths", ("drawn",), (6, 4, 24), 250),
    "transactions": Case("SMF", ("ycsb",), (6, 4, 24), 100),
    "transactions.online": Case("SMFOnline", ("zipf1.1-mvtso",), (4, 4, 24), 100),
    "engine": Case("FCFS", ("azure-code", "mooncake"), (3, 3, 24), 100),
    "attention.radial": Case("SlidingTile", ("decay-32x64", "scene-cut"), (6, 4, 24), 250),
    "moe.balance": Case("Zigzag", ("drift-64e",), (6, 4, 24), 100),
}
ALARM_S = 5  # processor seconds of a trial in this process
METHODS: dict[str, dict[str, Any]] = {
    "evolved": {},
    "random restart": {"proposers": ("restart",), "archive": "top"},
    "best-of-n": {"archive": "starts"},
}


def search(study: str, case: Case, method: str, seed: int, jail: str, siblings: bool = False) -> Search:
    """Run one method."""
    settings = Settings(case.start, case.workloads, trials=case.trials, seed=seed, siblings=siblings, jail=jail, **METHODS[method])
    found = Search(study, settings, budget=Budget(case.evaluations))
    found.run()
    return found


def rows(name: str, case: Case, seeds: Iterable[int], methods: tuple[str, ...], jail: str, siblings: bool) -> Iterator[dict[str, Any]]:
    """Held-out trials of every method's winner, and of the start."""
    for seed in seeds:
        for method in methods:
            began = time.monotonic()
            found = search(name, case, method, seed, jail, siblings)
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


class Alarmed(Opener):
    """Runs trials in this process, and ends those that hang."""

    def run(self, source: Any, point: Point) -> Trial:
        """See :meth:`Opener.run`."""
        bound = bound_of(self.study, point.workload, point.seed)
        signal.setitimer(signal.ITIMER_PROF, ALARM_S)
        try:
            return super().run(source, point)
        except Hangs:
            return Trial(point.split, point.name, point.seed, {}, bound.value if bound else None, "ran too long", "", "", 1)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


class Hangs(BaseException):
    """No candidate catches it by catching every Exception."""


def alarm(*_: Any) -> None:
    """End the trial."""
    raise Hangs


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
    parser.add_argument(
        "--siblings", action="store_true", help="parts of the study's other policies may be used, as a search does by default"
    )
    parser.add_argument("--fast", action="store_true", help="in this process, under an alarm, instead of jailed")
    options = parser.parse_args()
    if options.fast:
        signal.signal(signal.SIGPROF, alarm)
        vars(evolve_search)["Opener"] = Alarmed
    warnings.simplefilter("ignore")
    table: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in options.studies:
        case = CASES[name] if options.evaluations is None else Case(**vars(CASES[name]) | {"evaluations": options.evaluations})
        seeds = [options.seed] if options.seed is not None else range(1, (options.seeds or case.seeds) + 1)
        methods = (options.only,) if options.only else tuple(METHODS)
        for each in rows(name, case, seeds, methods, "none" if options.fast else "auto", options.siblings):
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
