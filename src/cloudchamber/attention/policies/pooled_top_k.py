"""Key blocks whose mean key scores best with the query block's mean query."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import Scene, Selection, kept, scale_of
from cloudchamber.core.policy import Choice, Policy


class PooledTopK(Policy):
    """Score blocks by their pooled queries and keys, and read the best few of each row: what VSA, SLA and MoBA route by.

    Cheap (one product of two small matrices), and right as long as the tokens of a block resemble each other.

    Parameters
    ----------
    pool : {"mean", "max", "bound"}, default "mean"
        How keys are pooled. "bound" is Quest's: the largest score that any key between the block's least and greatest could have.

    References
    ----------
    VSA: Faster Video Diffusion with Trainable Sparse Attention; Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference.
    """

    _constraints = {"pool": Choice("mean", "max", "bound")}

    def __init__(self, pool: str = "mean") -> None:
        self.pool = pool

    def select(self, scene: Scene) -> Selection:
        """The ``keep`` best blocks of every row."""
        return Selection(kept(pooled_scores(scene, self.pool), scene.keep))


def pooled_scores(scene: Scene, pool: str = "mean") -> np.ndarray:
    """Scaled scores of every pair of blocks, shape (heads, query blocks, key blocks)."""
    q = scene.pooled("q") * scale_of(scene.q.shape[2])
    if pool != "bound":
        return np.asarray(q @ scene.pooled("k", pool).transpose(0, 2, 1))
    low, high = (scene.pooled("k", how).transpose(0, 2, 1) for how in ("min", "max"))
    return np.asarray(np.maximum(q, 0) @ high + np.minimum(q, 0) @ low)
