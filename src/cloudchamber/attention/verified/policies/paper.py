"""The budgets that vAttention derives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cloudchamber.attention.verified.model import BudgetDecision, PilotStats, normal_quantile, settled
from cloudchamber.core.policy import Choice, Policy

SHARES = np.arange(1, 20) / 20  # of epsilon that go to the numerator
SPLITS = np.arange(1, 10) / 10  # and of delta


class PaperBudget(Policy):
    """Sums within a tolerance by the central limit theorem: of the denominator, of the numerator, or of both so that the output holds.

    A sum of n_s vectors with covariance C is within τ with probability 1 - δ if b >= (Φ⁻¹(1 - δ/2) n_s √Tr C / τ)². For the output:
    numerator within (ε₁, δ₁) and denominator within (ε₂, δ₂), 2 (ε₁ + ε₂) = ε and δ₁ + δ₂ = δ, with the split that needs fewest keys of
    19 x 9. N and D are taken from the pilot as if they were exact.

    Parameters
    ----------
    target : {"SDPA", "N", "D"}, default "SDPA"
        What is verified: the output, the numerator, the denominator.

    References
    ----------
    vAttention: Verified Sparse Attention.
    """

    _constraints = {"target": Choice("SDPA", "N", "D")}

    def __init__(self, target: str = "SDPA") -> None:
        self.target = target

    def reset(self, spec: Any, rng: Any) -> None:
        """Tabulate the quantiles of every split: (Φ⁻¹ / ε)² of the numerator and of the denominator."""
        super().reset(spec, rng)
        whole = (normal_quantile(1 - spec.delta / 2) / spec.epsilon) ** 2
        self.factors_ = np.array([[whole if self.target == "N" else 0.0], [whole if self.target == "D" else 0.0]])
        if self.target == "SDPA":
            z = np.array([normal_quantile(1 - spec.delta * share / 2) for share in SPLITS])
            n = z[None, :] / (SHARES[:, None] * spec.epsilon / 2)
            d = z[None, ::-1] / ((1 - SHARES[:, None]) * spec.epsilon / 2)
            self.factors_ = np.stack([(n**2).ravel(), (d**2).ravel()])

    def budget(self, pilot: PilotStats, n_s: int) -> BudgetDecision:
        """The rule; its bound is the relative error of the target."""
        needs = np.zeros(2)
        for i, (trace, total) in enumerate(((pilot.trace_av, pilot.numerator_norm), (pilot.variance_a, pilot.denominator))):
            needs[i] = n_s**2 * trace / total**2 if total > 0 else (math.inf if trace > 0 else 0.0)
        with np.errstate(invalid="ignore"):  # 0 · inf: a sum that is not verified, and unknown
            wanted = float(np.nan_to_num(self.factors_ * needs[:, None], nan=0.0, posinf=math.inf).max(axis=0).min())
        return settled(wanted, pilot, n_s, self.spec_, lambda b: float(self.spec_.epsilon * math.sqrt(wanted / b)))
