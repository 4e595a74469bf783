"""Each head by its kind: near in time, or the same place through time."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import kept
from cloudchamber.attention.vsa.model import Tiles, TileView
from cloudchamber.core.policy import Policy

SPATIAL, TEMPORAL = np.array([1000.0, 1.0, 1.0]), np.array([0.001, 1.0, 1.0])


class TileSpatialTemporal(Policy):
    """Read the K nearest tiles by frame first, or by place within the frame first, whichever the means say catches more.

    Sparse VideoGen tries both on a few queries; here the softmax of the tiles' scores judges, which costs nothing more.

    References
    ----------
    Sparse VideoGen: Accelerating Video Diffusion Transformers with Spatial-Temporal Sparsity.
    """

    def select(self, view: TileView) -> Tiles:
        """One of two static masks."""
        p = view.sizes * np.exp(view.scores - view.scores.max(axis=1, keepdims=True))
        p = p / p.sum(axis=1, keepdims=True)
        steps = np.abs(view.places[:, None] - view.places[None])
        masks = [kept(-(steps * weight).sum(axis=2), self.spec_.keep) for weight in (SPATIAL, TEMPORAL)]
        return Tiles(max(masks, key=lambda mask: float(view.sizes @ (p * mask).sum(axis=1))))
