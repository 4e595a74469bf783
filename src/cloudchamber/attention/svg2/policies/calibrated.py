"""Top-p that checks itself."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.svg2.model import ClusterView, Kept, top_p
from cloudchamber.core.policy import Integer, Policy, Real


class CalibratedTopP(Policy):
    """Correct the estimate by the scatter within clusters, and raise p until a few queries that were looked at in full agree.

    Estimates are multiplied by exp(spread), which is bounded so that one loose cluster does not take everything, and normalised. Then
    the mass that is left out, 1 - p, is halved until the sampled queries catch p on average.

    Parameters
    ----------
    min_ratio : float, default 0.0
        Share of the key clusters that every query cluster keeps.
    halvings : int, default 12
        Most times that 1 - p is halved; after that all is kept.
    most_spread : float, default 3.0
        Largest correction of a logarithm.
    """

    _constraints = {"min_ratio": Real(0, 1), "halvings": Integer(0, 60), "most_spread": Real(0)}

    def __init__(self, min_ratio: float = 0.0, *, halvings: int = 12, most_spread: float = 3.0) -> None:
        self.min_ratio = min_ratio
        self.halvings = halvings
        self.most_spread = most_spread

    def keep(self, view: ClusterView) -> Kept:
        """The first mask whose sampled recall is p."""
        prob = view.prob * np.exp(np.minimum(view.spread, self.most_spread))
        prob = prob / np.maximum(prob.sum(axis=1, keepdims=True), 1e-300)
        for halving in range(self.halvings + 1):
            mask = top_p(prob, 1 - (1 - view.p) * 0.5**halving, self.min_ratio) & (view.sizes_k > 0)
            if not len(view.sample_row) or (view.sample_mass * mask[view.sample_row]).sum(axis=1).mean() >= view.p:
                return Kept(mask)
        return Kept(np.broadcast_to(view.sizes_k > 0, prob.shape).copy())
