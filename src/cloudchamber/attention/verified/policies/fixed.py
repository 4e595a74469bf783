"""The floor: the same share for every head."""

from __future__ import annotations

import math

from cloudchamber.attention.verified.model import BudgetDecision, PilotStats, settled
from cloudchamber.core.policy import Policy, Real


class FixedBudget(Policy):
    """Read a share of the residual keys, whatever the pilot says. Nothing is verified.

    Parameters
    ----------
    share : float, default 0.05

    Examples
    --------
    >>> FixedBudget(0.1)
    FixedBudget(share=0.1)
    """

    _constraints = {"share": Real(0, 1)}

    def __init__(self, share: float = 0.05) -> None:
        self.share = share

    def budget(self, pilot: PilotStats, n_s: int) -> BudgetDecision:
        """The share; no bound."""
        return settled(self.share * n_s, pilot, n_s, self.spec_, lambda b: math.inf)
