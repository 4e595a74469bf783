"""Top-p on sums along antidiagonals."""

from __future__ import annotations

from cloudchamber.attention.svg2.model import ClusterView, Kept, top_p
from cloudchamber.core.policy import Policy, Real


class XAttentionLike(Policy):
    """Keep the key clusters of largest attention by antidiagonals until they sum to p, as XAttention does with blocks.

    Every token is in the estimate, not only the mean of its cluster, so it sees what stands out; it costs an eighth of dense scores.

    Parameters
    ----------
    min_ratio : float, default 0.0
        Share of the key clusters that every query cluster keeps.

    References
    ----------
    XAttention: Block Sparse Attention with Antidiagonal Scoring.
    """

    _constraints = {"min_ratio": Real(0, 1)}
    reads_antidiagonals = True

    def __init__(self, min_ratio: float = 0.0) -> None:
        self.min_ratio = min_ratio

    def keep(self, view: ClusterView) -> Kept:
        """By the antidiagonals' estimate, or by that of the means where there is none."""
        prob = view.prob if view.antidiagonal is None else view.antidiagonal
        return Kept(top_p(prob, view.p, self.min_ratio) & (view.sizes_k > 0))
