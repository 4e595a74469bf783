"""A budget whose samples prefer keys that may matter."""

from __future__ import annotations

import math
from typing import ClassVar

from cloudchamber.attention.verified.model import BudgetDecision, PilotStats, Sampling, settled
from cloudchamber.attention.verified.policies.ratio import relative_spread
from cloudchamber.core.policy import Policy


class ImportanceBudget(Policy):
    """Draw residual keys with chances p_j by a cheap bound of their logits, and weigh each by 1 / (b p_j).

    The rule is ``RatioBudget``'s with a_j / (n_s p_j) in place of a_j: b = c² n_s² Tr C / (ε L)². Draws are with replacement, so that no
    key is read twice but some draws are; there is no correction for a finite population, and b = n_s reads everything instead. It pays
    where bounds tell heavy keys from light ones that the top-k has left; where they do not, it reads more than ``RatioBudget``.

    Examples
    --------
    >>> ImportanceBudget().sampling
    'importance'

    References
    ----------
    vAttention: Verified Sparse Attention; Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference; Weighted Average Importance
    Sampling and Defensive Mixture Distributions.
    """

    sampling: ClassVar[Sampling] = "importance"

    def budget(self, pilot: PilotStats, n_s: int) -> BudgetDecision:
        """The rule; its bound is the relative error of the output."""
        spread = relative_spread(pilot, n_s, self.spec_, 1.0)
        return settled(spread / self.spec_.epsilon**2, pilot, n_s, self.spec_, lambda b: math.sqrt(spread / b))
