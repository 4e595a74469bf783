"""Each head by its kind: neighbours within frames, or the same place through all frames."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import Grid, Scene, Selection, kept, pooled, scale_of
from cloudchamber.core.policy import Integer, Policy


class SpatialTemporal(Policy):
    """Try both patterns on a few query rows of each head, and use the one that catches more attention: Sparse VideoGen's choice.

    Parameters
    ----------
    rows : int, default 32
        Query tokens that are tried.

    References
    ----------
    Sparse VideoGen: Accelerating Video Diffusion Transformers with Spatial-Temporal Sparsity.
    """

    _constraints = {"rows": Integer(1)}

    def __init__(self, rows: int = 32) -> None:
        self.rows = rows

    def select(self, scene: Scene) -> Selection:
        """One of two static masks for each head."""
        grid = scene.grid or Grid(scene.q_blocks.tokens)
        near = [kept(_closeness(grid, scene, kind), scene.keep) for kind in ("spatial", "temporal")]
        drawn = np.sort(self.rng_.permutation(scene.q.shape[1])[: self.rows])
        block = np.searchsorted(scene.q_blocks.starts()[0], drawn, side="right") - 1
        owner = np.repeat(np.arange(scene.k_blocks.count), scene.k_blocks.sizes[0])
        chosen = []
        for h in range(len(scene.q)):
            logits = scene.q[h, drawn] @ scene.k[h].T * scale_of(scene.q.shape[2])
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            caught = [float((p * mask[block][:, owner]).sum()) for mask in near]
            chosen.append(near[int(caught[1] > caught[0])])
        return Selection(np.stack(chosen))


def _closeness(grid: Grid, scene: Scene, kind: str) -> np.ndarray:
    """How near two blocks lie: by frame first, or by place within the frame first. Text lies near everything."""
    where = np.full((grid.tokens, 3), np.nan)
    where[grid.text :] = grid.positions()
    weight = np.array([1000.0, 1.0, 1.0] if kind == "spatial" else [0.001, 1.0, 1.0])
    centres = []
    for blocks in (scene.q_blocks, scene.k_blocks):
        order = np.arange(grid.tokens) if blocks.order is None else blocks.order[0]
        centres.append(pooled(where[order][None], blocks)[0])
    apart = (np.abs(centres[0][:, None] - centres[1][None]) * weight).sum(axis=2)
    return np.asarray(np.nan_to_num(-apart, nan=np.inf))
