"""A guard for blocks whose mean says little."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.sla.model import MARGINAL, NEGLIGIBLE, Routes, RouteView, estimate, labelled, within
from cloudchamber.core.policy import Policy, Real


class SpargeLike(Policy):
    """Estimated attention decides, but pairs with a block of dissimilar tokens, whose mean stands for none of them, come first.

    SpargeAttention computes such pairs always. Here they take the budget first, the best estimates among them; what is left goes to the
    best estimates of all. No such pair is negligible.

    Parameters
    ----------
    theta : float, default 0.1
        Mean cosine of a block's tokens below which its mean is not trusted.

    References
    ----------
    SpargeAttention: Accurate and Training-free Sparse Attention Accelerating Any Model Inference.
    """

    _constraints = {"theta": Real(-1, 1)}

    def __init__(self, theta: float = 0.1) -> None:
        self.theta = theta

    def route(self, view: RouteView) -> Routes:
        """The untrusted, then the rest."""
        loose = (view.q_similarity < self.theta)[:, None] | (view.k_similarity < self.theta)
        critical = within(-(estimate(view) + loose), np.ones(loose.shape, bool), self.spec_.critical * len(loose))
        labels = labelled(critical, view.scores, self.spec_.negligible)
        return Routes(np.where(loose & (labels == NEGLIGIBLE), np.int8(MARGINAL), labels))
