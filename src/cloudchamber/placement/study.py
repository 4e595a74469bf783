"""The study ``placement``: which GPU holds which models, against the exact optimum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudchamber.core.datasets import Dataset, locate
from cloudchamber.core.errors import DatasetUnavailable
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .data import FILE, prism_dataset
from .model import Instance, PlacementPolicy

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .simulator import Loads
    from .workloads import PlacementWorkload


class PlacementStudy(Study):
    """Which GPU holds which models, so that none is short of memory for its KV cache."""

    name = "placement"
    title = "Placing models on shared GPUs"
    systems = ("Prism", "ADRS")
    papers = (
        "Prism: Unleashing GPU Sharing for Cost-Efficient Multi-LLM Serving",
        "Barbarians at the Gate: How AI is Upending Systems Research",
        "Let the Barbarians In: How AI Can Accelerate Systems Performance Research",
    )
    protocol = PlacementPolicy
    metrics = (
        Metric("kvpr", "1/GB"),
        Metric("balance", "1", "max", high=1.0),
        Metric("least_free_share", "1", "max", high=1.0),
        Metric("gpus_used_share", "1", "max", high=1.0),
    )
    floor = ("RoundRobinFit", "RandomFit", "FirstFit")
    claims = CLAIMS
    notes = (
        "kvpr is the largest over GPUs of sum(rate / slo) / (memory - sum(size)); the published score is 1 / mean of kvpr over the set.",
        "With up to 18 models the bound is the exact optimum, and ExactPacking attains it; with more, total demand / total free memory.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in policies."""
        from . import (
            Annealing,
            ExactPacking,
            FirstFit,
            GreedyAfter,
            GreedyMixed,
            LocalSearch,
            Multifit,
            PrismGreedy,
            RandomFit,
            RoundRobinFit,
        )

        classes = (
            ExactPacking,
            Multifit,
            Annealing,
            LocalSearch,
            GreedyMixed,
            GreedyAfter,
            PrismGreedy,
            RoundRobinFit,
            RandomFit,
            FirstFit,
        )
        return {cls.__name__: cls for cls in classes}

    def workloads(self) -> Mapping[str, PlacementWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def workload(self, trace: Path, **params: Any) -> PlacementWorkload:
        """Return the workload of a user's file of instances."""
        from .workloads import user_workload

        return user_workload(trace, params)

    def adjusted(self, workload: Any, **params: Any) -> PlacementWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def ready(self, workload: Any) -> tuple[PlacementWorkload, str]:
        """Find the published set, or replace it by its generated twin and say so."""
        if workload.is_generated or workload.file is not None:
            return workload, ""
        try:
            return replace(workload, file=str(locate(prism_dataset()) / FILE)), ""
        except DatasetUnavailable as error:
            return workload.twin(), f"{error} Until then its workload runs on its generated twin, and its rows say so."

    def datasets(self) -> Iterable[Dataset]:
        """The published instances."""
        return (prism_dataset(),)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Place one instance's models."""
        from .simulator import Loads, run

        instance = workload.instance(seed)
        found = run(policy, instance, rng_of(self.name, workload.name, seed))
        if isinstance(found, Loads):
            return _outcome(found, instance)
        return Outcome({}, found, feedback=f"{'; '.join(found)}. Return Placement(gpu_of) with one GPU for each model, in order.")

    def bound(self, workload: Any, seed: int) -> Bound:
        """The exact optimum and its placement, or the mediant bound for many models."""
        from .optimum import least_kvpr

        instance = workload.instance(seed)
        best = least_kvpr(instance)
        return Bound(best.kvpr, best.is_exact, None if best.loads is None else _outcome(best.loads, instance))

    def figures(self, results: Results) -> Sequence[Figure]:
        """The published score of every policy, and what lies on each GPU in one instance."""
        from .figures import figures

        return figures(results)


def _outcome(loads: Loads, instance: Instance) -> Outcome:
    worst = int(loads.kvpr.argmax())
    kvpr, free_gb = float(loads.kvpr[worst]), instance.gpu_memory_gb - loads.used_gb
    metrics = {
        "kvpr": kvpr,
        "balance": float(loads.kvpr.mean()) / kvpr if kvpr else 1.0,
        "least_free_share": float(free_gb.min()) / instance.gpu_memory_gb,
        "gpus_used_share": float((loads.used_gb > 0).mean()),
    }
    slack = int(loads.kvpr.argmin())
    on_worst = ", ".join(
        f"model {i} ({model.size_gb:g} GB, rate/slo {model.demand:.2f})"
        for i, model in enumerate(instance.models)
        if loads.gpu_of[i] == worst
    )
    feedback = (
        f"kvpr {kvpr:.5f} is set by GPU {worst}: demand {loads.demand[worst]:.2f} over {free_gb[worst]:g} GB free, with {on_worst}. "
        f"The least pressed, GPU {slack}, has kvpr {loads.kvpr[slack]:.5f} and {free_gb[slack]:g} GB free."
    )
    return Outcome(metrics, (), {"gpu_of": loads.gpu_of, "used_gb": loads.used_gb, "demand": loads.demand, "kvpr": loads.kvpr}, feedback)
