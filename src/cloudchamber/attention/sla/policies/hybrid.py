"""Two rules at once."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import kept
from cloudchamber.attention.sla.model import Routes, RouteView, ahead, estimate, labelled, within
from cloudchamber.core.policy import Policy, Real


class HybridTopKTopP(Policy):
    """A block is critical only if it is among the best few of its row and the better ones do not hold enough already.

    Top-p alone lets flat rows take everything, top-k alone gives peaked rows blocks that they do not need.

    Parameters
    ----------
    p : float, default 0.95
        Share at which a row has enough.
    most : float, default 1.5
        Critical blocks of one row at most, times the average that may be spent.
    """

    _constraints = {"p": Real(0, 1), "most": Real(1)}

    def __init__(self, p: float = 0.95, *, most: float = 1.5) -> None:
        self.p = p
        self.most = most

    def route(self, view: RouteView) -> Routes:
        """What both allow, within the budget."""
        keep = self.spec_.critical
        before = ahead(estimate(view))
        allowed = (before <= self.p) & kept(view.scores + np.log(np.maximum(view.k_sizes, 1e-9)), int(self.most * keep))
        return Routes(labelled(within(before, allowed, keep * len(before)), view.scores, self.spec_.negligible))
