"""The study ``attention.verified``: how many keys are read, so that the error is bounded with known probability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .model import Budget, BudgetSpec

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .simulator import Run
    from .workloads import VerifiedWorkload


SOURCES = (
    "asking.py",
    "coverage.py",
    "model.py",
    "optimum.py",
    "pilot.py",
    "policies/*.py",
    "populations.py",
    "simulator.py",
    "study.py",
    "workloads.py",
)


class VerifiedStudy(Study):
    """How many keys a decode step reads for a bound on its error (``attention.verified``)."""

    name = "attention.verified"
    title = "Verified sparse attention"
    systems = ("vAttention (sparse attention)",)
    papers = ("vAttention: Verified Sparse Attention",)
    protocol = Budget
    metrics = (
        Metric("repaired_density", "1", high=1 + 1e-9),
        Metric("density", "1", high=1 + 1e-9),
        Metric("failure_rate", "1", high=1.0),
        Metric("failure_low", "1", high=1.0),
        Metric("denominator_failure_rate", "1", high=1.0),
        Metric("mean_error", "1"),
        Metric("mean_keys", "1"),
        Metric("floor_share", "1", high=1.0),
        Metric("dense_share", "1", high=1.0),
    )
    floor = ("FixedBudget",)
    claims = CLAIMS
    libraries = ("numpy", "numba", "scipy")
    sources = ("attention/minilm.py", *(f"attention/verified/{name}" for name in SOURCES))
    notes = (
        "A sample fails if the relative error of the output exceeds epsilon; failure_low is the 99 % lower limit of that probability, and "
        "the promise is broken where it is above delta.",
        "The objective is the density that it takes to keep the promise: a budget that breaks it has to read everything in so many calls "
        "that failures fall to delta. density and failure_rate are those of the budget itself.",
        "All budgets cut their samples from the same random orders, but for those that sample by importance, which share draws of their "
        "own; a key drawn twice is read once. The bound knows how often samples of any fixed size fail, drawn either way, head by head, "
        "but not the draw.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in budgets."""
        from . import AdaptiveDenominator, FixedBudget, HoeffdingBudget, ImportanceBudget, PaperBudget, RatioBudget

        return {
            "RatioBudget": RatioBudget,
            "ImportanceBudget": ImportanceBudget,
            "PaperBudget": PaperBudget,
            "PaperBudget-N": partial(PaperBudget, "N"),
            "PaperBudget-D": partial(PaperBudget, "D"),
            "AdaptiveDenominator": AdaptiveDenominator,
            "HoeffdingBudget": HoeffdingBudget,
            "FixedBudget": FixedBudget,
        }

    def workloads(self) -> Mapping[str, VerifiedWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def adjusted(self, workload: Any, **params: Any) -> VerifiedWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def ready(self, workload: Any) -> tuple[VerifiedWorkload, str]:
        """Find the model that ``minilm`` reads, or put generated heads in its place and say so."""
        from cloudchamber.attention.minilm import is_there, missing

        from .workloads import MINILM

        if workload.source != MINILM or workload.is_generated or is_there():
            return workload, ""
        return workload.twin(), f"{missing()} Until then its workload runs on a generated stand-in, and its rows say so."

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Ask for the size of every sample, draw it, and compare with dense attention."""
        from .simulator import run

        return _outcome(run(policy, workload.spec, workload.instance(seed), rng_of(self.name, workload.name, seed)), workload.spec)

    def bound(self, workload: Any, seed: int) -> Bound:
        """The least repaired density of budgets that know the heads but not the draw."""
        from .optimum import least_density

        return Bound(least_density(workload.instance(seed), workload.spec), False)

    def figures(self, results: Results) -> Sequence[Figure]:
        """What every budget reads, and how often it fails."""
        from .figures import figures

        return figures(results)


def _outcome(done: Run, spec: BudgetSpec) -> Outcome:
    from .asking import REASONS
    from .simulator import repaired

    failed = done.error > spec.epsilon
    density = float(done.density.mean())
    cost, low = repaired(density, int(failed.sum()), len(failed), spec.delta)
    shares = {reason: float((done.reason == i).mean()) for i, reason in enumerate(REASONS)}
    metrics = {
        "repaired_density": cost,
        "density": density,
        "failure_rate": float(failed.mean()),
        "failure_low": low,
        "denominator_failure_rate": float((done.denominator_error > spec.epsilon).mean()),
        "mean_error": float(done.error.mean()),
        "mean_keys": float(done.b.mean()),
        "floor_share": shares["floor"],
        "dense_share": shares["dense"],
    }
    kept = "broken" if low > spec.delta else "kept"
    feedback = (
        f"promise {kept}: the error exceeds {spec.epsilon:g} in {failed.mean():.1%} of samples ({spec.delta:.0%} allowed), on average it "
        f"is {done.error.mean():.4f}, at the 90th percentile {np.quantile(done.error, 0.9):.4f}. Density {density:.3f}; sizes set by "
        + ", ".join(f"{reason} {share:.0%}" for reason, share in shares.items() if share)
        + "."
    )
    return Outcome(metrics, (), {"error": done.error, "b": done.b, "reason": done.reason}, feedback)
