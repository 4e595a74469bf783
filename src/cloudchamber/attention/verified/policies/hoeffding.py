"""A budget from the range, without the central limit theorem."""

from __future__ import annotations

import math

from cloudchamber.attention.verified.model import BudgetDecision, PilotStats, settled
from cloudchamber.core.policy import Policy, Real


class HoeffdingBudget(Policy):
    """Trust the largest deviation seen instead of the variance: conservative, for samples of any size.

    The mean of b vectors within R of their mean is off by t with probability at most 2 exp(-b t² / (2 R²)) (Hoeffding's inequality in a
    Hilbert space, by Pinelis), hence b∞ = 2 R² ln(2/δ) n_s² / (ε ‖N̂‖)². It is a proof only if no residual key lies further out than
    ``margin`` times the furthest of the pilot.

    Parameters
    ----------
    margin : float, default 1.0
        Factor on the largest deviation in the pilot.

    References
    ----------
    Optimum Bounds for the Distributions of Martingales in Banach Spaces.
    """

    _constraints = {"margin": Real(0, strict=True)}

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = margin

    def budget(self, pilot: PilotStats, n_s: int) -> BudgetDecision:
        """The rule; its bound is the relative error of the output."""
        spec, radius = self.spec_, self.margin * pilot.radius_error
        if not pilot.numerator_norm > 0:
            return settled(math.inf, pilot, n_s, spec, lambda b: math.inf)
        spread = 2 * math.log(2 / spec.delta) * (radius * n_s / pilot.numerator_norm) ** 2
        endless = spread / spec.epsilon**2
        return settled(endless / (1 + endless / n_s), pilot, n_s, spec, lambda b: math.sqrt(spread * (1 / b - 1 / n_s)))
