"""The published rule: top-p on the centroids' estimate."""

from __future__ import annotations

from cloudchamber.attention.svg2.model import ClusterView, Kept, top_p
from cloudchamber.core.policy import Policy, Real


class CentroidTopP(Policy):
    """Keep the key clusters of largest estimated attention until they sum to p, and a least share of all.

    The estimate knows nothing of the scatter within clusters, so that p is a wish and no guarantee.

    Parameters
    ----------
    min_ratio : float, default 0.1
        Share of the key clusters that every query cluster keeps.

    References
    ----------
    Sparse VideoGen2: Accelerate Video Generation with Sparse Attention via Semantic-Aware Permutation.
    """

    _constraints = {"min_ratio": Real(0, 1)}

    def __init__(self, min_ratio: float = 0.1) -> None:
        self.min_ratio = min_ratio

    def keep(self, view: ClusterView) -> Kept:
        """By the estimate as it is."""
        return Kept(top_p(view.prob, view.p, self.min_ratio) & (view.sizes_k > 0))
