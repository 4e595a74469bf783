"""The study ``transactions``: every known order of a batch, and what no order can beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.datasets import Dataset, locate
from cloudchamber.core.errors import DatasetUnavailable
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .data import txn_dataset
from .model import Scheduler
from .simulator import waited_for

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .simulator import Schedule, Simulator
    from .workloads import TxnWorkload


class TransactionsStudy(Study):
    """The study transactions: in which serial order a batch of conflicting transactions finishes soonest."""

    name = "transactions"
    title = "Transaction scheduling"
    systems = ("R-SMF", "ADRS")
    papers = ("Towards Optimal Transaction Scheduling", "Barbarians at the Gate: How AI is Upending Systems Research")
    protocol = Scheduler
    metrics = (
        Metric("makespan_slots", "slots"),
        Metric("mean_end_slots", "slots"),
        Metric("p99_end_slots", "slots"),
        Metric("parallelism", "1", "max"),
        Metric("restarts", "1"),
    )
    floor = ("Random",)
    claims = CLAIMS
    notes = (
        "A policy answers with an order and nothing else; the world checks it and computes the makespan.",
        "The budget counts placements, and a policy keeps it by itself; FIFO, the other sorts and SMF need far less than it.",
        "CPSATExact solves up to 12 transactions and answers with SMFAll's order beyond; it needs ortools, which the jail leaves out.",
        "Summed makespans are dominated by w1: compare the ratios, and see their geometric mean in the first figure.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in policies."""
        from . import (
            FIFO,
            SMF,
            BestOfRandom,
            Clustered,
            CPSATExact,
            FewestWritesFirst,
            GeneticSearch,
            IteratedGreedy,
            LocalSearch,
            Random,
            ShortestFirst,
            SMFAll,
            TabuSearch,
        )

        searches = (LocalSearch, IteratedGreedy, TabuSearch, GeneticSearch, BestOfRandom, CPSATExact)
        rules = (SMFAll, SMF, Clustered, FewestWritesFirst, ShortestFirst, FIFO, Random)
        return {cls.__name__: cls for cls in (*searches, *rules)}

    def workloads(self) -> Mapping[str, TxnWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def workload(self, trace: Path, **params: Any) -> TxnWorkload:
        """Return the workload of a user's batches."""
        from .workloads import user_workload

        return user_workload(trace, params)

    def adjusted(self, workload: Any, **params: Any) -> TxnWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def ready(self, workload: Any) -> tuple[TxnWorkload, str]:
        """Find the public batches, or replace them by their generated twin and say so."""
        if workload.is_generated or workload.sha256:
            return workload, ""
        try:
            return replace(workload, folder=str(locate(txn_dataset()))), ""
        except DatasetUnavailable as error:
            return workload.twin(), f"{error} Until then its workloads run on generated twins, and their rows say so."

    def datasets(self) -> Iterable[Dataset]:
        """The three public batches."""
        return (txn_dataset(),)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Ask one policy for the order of one batch, and run it."""
        world = workload.world(seed)
        order = world.ask(policy, rng_of(self.name, workload.name, seed))
        wrong = world.problems(order)
        return Outcome.void(wrong) if wrong else outcome_of(world, world.schedule(order), workload.bound(seed)[0])

    def bound(self, workload: Any, seed: int) -> Bound:
        """The exact optimum of a small batch, else the largest of the proven bounds."""
        value, order = workload.bound(seed)
        if order is None:
            return Bound(value, False)
        world = workload.world(seed)
        return Bound(value, True, outcome_of(world, world.schedule(order), value))

    def figures(self, results: Results) -> Sequence[Figure]:
        """Schedules over time, and each policy's mean over the workloads."""
        from .figures import figures

        return figures(results)


def outcome_of(world: Simulator, schedule: Schedule, bound: int) -> Outcome:
    """Return the outcome of a schedule: its metrics, its rows for the pictures, and what limits it in words."""
    batch, end, span = world.batch, schedule.end, schedule.makespan
    metrics = {
        "makespan_slots": float(span),
        "mean_end_slots": float(end.mean()) if len(end) else 0.0,
        "p99_end_slots": float(np.quantile(end, 0.99)) if len(end) else 0.0,
        "parallelism": float(batch.length.sum() / span) if span else 0.0,
        "restarts": float(schedule.restarts),
    }
    series = {"order": np.array(schedule.order, dtype=np.int64), "start": schedule.start, "end": end}
    return Outcome(metrics, (), series, _feedback(world, schedule, bound))


def _feedback(world: Simulator, schedule: Schedule, bound: int) -> str:
    """Makespan, bound, and the chain of transactions that made the last one late."""
    if not len(schedule.end):
        return "an empty batch takes no time."
    chain = waited_for(world, schedule)
    keys = [key for _, key in chain if key is not None]
    hottest = max(set(keys), key=lambda key: (keys.count(key), -key)) if keys else None
    why = f"{keys.count(hottest)} of its waits are for key {hottest}" if hottest is not None else "it never waits"
    tail = " -> ".join(str(t) for t, _ in chain[-6:])
    return (
        f"makespan {schedule.makespan} slots (no order is below {bound}). The last to end waited in a chain of {len(chain)} "
        f"transactions (...{tail}); {why}."
    )
