"""The rule of vAttention's public code, named for what it verifies."""

from __future__ import annotations

import math

from cloudchamber.attention.verified.model import BudgetDecision, PilotStats, normal_quantile, settled
from cloudchamber.core.policy import Policy

LEAST_DEVIATION = 1e-8  # the code's


class AdaptiveDenominator(Policy):
    """Keep the denominator within epsilon, and say nothing of the output.

    b = (Φ⁻¹(1 - δ) σ̂ n_s / (ε D̂))² with the standard deviation σ̂ of the pilot's weights, at least 1e-8. The quantile is the one-sided one,
    so that the denominator misses its tolerance up to twice as often as delta says. How the code samples besides is the method
    ``PublicCode``; here it gets the same samples as every other budget.

    References
    ----------
    vAttention: Verified Sparse Attention; its repository sparse-attention-hub.
    """

    def budget(self, pilot: PilotStats, n_s: int) -> BudgetDecision:
        """The rule; its bound is the relative error of the denominator."""
        deviation = max(math.sqrt(pilot.variance_a), LEAST_DEVIATION)
        total = pilot.denominator
        root = normal_quantile(1 - self.spec_.delta) * deviation * n_s / total if total > 0 else math.inf
        return settled((root / self.spec_.epsilon) ** 2, pilot, n_s, self.spec_, lambda b: root / math.sqrt(b))
