"""A fixed number of clusters, and a fixed cut."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.svg2.model import ClusterView, Kept, top_p
from cloudchamber.core.policy import Policy, Real


class TopK(Policy):
    """Keep the same share of the key clusters in every row, the best estimates.

    Parameters
    ----------
    share : float, default 0.25
    """

    _constraints = {"share": Real(0, 1)}

    def __init__(self, share: float = 0.25) -> None:
        self.share = share

    def keep(self, view: ClusterView) -> Kept:
        """At least one cluster."""
        least = max(self.share, 1 / view.prob.shape[1])
        return Kept(top_p(view.prob, -1.0, least) & (view.sizes_k > 0))


class Threshold(Policy):
    """Keep pairs whose estimate exceeds the even share by a factor, and the best of each row.

    Parameters
    ----------
    factor : float, default 0.5
        Of the attention that a cluster of its size would get if all keys counted alike.
    """

    _constraints = {"factor": Real(0)}

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def keep(self, view: ClusterView) -> Kept:
        """By density of attention rather than by its sum."""
        even = view.sizes_k / max(int(view.sizes_k.sum()), 1)
        best = np.arange(view.prob.shape[1]) == view.prob.argmax(axis=1)[:, None]
        return Kept(((view.prob >= self.factor * even) | best) & (view.sizes_k > 0))
