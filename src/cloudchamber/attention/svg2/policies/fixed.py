"""Everything, and the lot."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.svg2.model import ClusterView, Kept
from cloudchamber.core.policy import Policy


class KeepAll(Policy):
    """Dense attention."""

    def keep(self, view: ClusterView) -> Kept:
        """All that hold a key."""
        return Kept(np.broadcast_to(view.sizes_k > 0, view.prob.shape).copy())


class RandomClusters(Policy):
    """Each pair with probability p, and one of each row: it catches p on average, and saves 1 - p."""

    def keep(self, view: ClusterView) -> Kept:
        """By lot."""
        drawn = self.rng_.random(view.prob.shape)
        lot = drawn < view.p
        lot[np.arange(len(lot)), np.where(view.sizes_k > 0, drawn, np.inf).argmin(axis=1)] = True
        return Kept(lot & (view.sizes_k > 0))
