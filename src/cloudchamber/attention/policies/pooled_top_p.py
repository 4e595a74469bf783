"""As many blocks as a share of the estimated attention asks for."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import Scene, Selection
from cloudchamber.attention.policies.pooled_top_k import pooled_scores
from cloudchamber.core.policy import Policy


class PooledTopP(Policy):
    """Spend the budget where estimated attention is spread: rows get more blocks the flatter they are.

    The estimate is a softmax over the scores of pooled blocks, weighted by their sizes. Blocks are taken from the largest estimate
    down, over all rows and heads at once, which is the top-p rule with the p that just meets the budget.
    """

    def select(self, scene: Scene) -> Selection:
        """Every row its best block, then the largest estimates."""
        scores = pooled_scores(scene) + np.log(np.maximum(scene.k_blocks.sizes, 1e-9))[:, None]
        p = np.exp(scores - scores.max(axis=2, keepdims=True))
        return Selection(best_of_all(p / p.sum(axis=2, keepdims=True), scene.keep))


def best_of_all(mass: np.ndarray, keep: int) -> np.ndarray:
    """The best block of each row, and the largest of all others until ``keep`` per row are taken on average."""
    flat = mass.reshape(-1, mass.shape[2]).copy()
    mask = np.zeros(flat.shape, bool)
    mask[np.arange(len(flat)), flat.argmax(axis=1)] = True
    flat[mask] = -np.inf
    left = len(flat) * (min(keep, flat.shape[1]) - 1)
    mask.ravel()[np.argsort(-flat, axis=None, kind="stable")[:left]] = True
    return mask.reshape(mass.shape)
