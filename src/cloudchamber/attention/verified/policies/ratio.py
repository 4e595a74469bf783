"""A budget for the error of the output itself."""

from __future__ import annotations

import math

from cloudchamber.attention.verified.model import BudgetDecision, BudgetSpec, PilotStats, settled, spread_quantile
from cloudchamber.core.policy import Policy


class RatioBudget(Policy):
    """Read as many keys as the output's own error asks for: numerator and denominator err together, and mostly cancel.

    To first order ô - o = (n_s / b) Σ e_j / D over the sample, e_j = a_j (v_j - ô), whose covariance C is much smaller than that of
    a_j v_j. With h = (Tr C)² / Tr C² and c² = χ²_h(1 - δ/2) / h (Satterthwaite) a sample with replacement needs

        b∞ = c² n_s² Tr C / (ε L)²,

    L being a lower confidence bound (1 - δ/2) of ‖N‖, and one without replacement b∞ n_s / (b∞ + n_s). Where the pilot cannot tell ‖N‖
    from 0 every key is read. A sample of all keys is dense attention.

    Examples
    --------
    >>> RatioBudget()
    RatioBudget()
    """

    def budget(self, pilot: PilotStats, n_s: int) -> BudgetDecision:
        """The rule; its bound is the relative error of the output."""
        spread = relative_spread(pilot, n_s, self.spec_, max(0.0, 1 - pilot.b0 / n_s))
        endless = spread / self.spec_.epsilon**2
        wanted = endless / (1 + endless / n_s) if endless < math.inf else math.inf
        return settled(wanted, pilot, n_s, self.spec_, lambda b: math.sqrt(spread * (1 / b - 1 / n_s)))


def relative_spread(pilot: PilotStats, n_s: int, spec: BudgetSpec, left: float) -> float:
    """c² n_s² Tr C / L²: the squared relative error of a single draw, infinite where the pilot cannot tell ‖N‖ from 0.

    ``left``: share of the variance that a pilot of its size leaves, 1 - b0 / n_s without replacement.
    """
    p = 1 - spec.delta / 2
    pilot_error = spread_quantile(p, pilot.rank_av) * pilot.trace_av / pilot.b0 * left
    least_norm = pilot.numerator_norm - n_s * math.sqrt(pilot_error)
    if not least_norm > 0:
        return math.inf
    return spread_quantile(p, pilot.rank_error) * (n_s / least_norm) ** 2 * pilot.trace_error
