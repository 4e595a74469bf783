"""VSA's rule."""

from __future__ import annotations

from cloudchamber.attention.model import kept
from cloudchamber.attention.vsa.model import Tiles, TileView
from cloudchamber.core.policy import Choice, Policy


class CoarseTopK(Policy):
    """Read the K key tiles whose mean keys score best with the query tile's mean query; ties to the lower tile.

    Parameters
    ----------
    pool : {"mean", "max"}, default "mean"
        How keys are pooled; the paper found the mean better in training.

    References
    ----------
    VSA: Faster Video Diffusion with Trainable Sparse Attention.
    """

    _constraints = {"pool": Choice("mean", "max")}

    def __init__(self, pool: str = "mean") -> None:
        self.pool = pool

    def select(self, view: TileView) -> Tiles:
        """The best of each row."""
        return Tiles(kept(view.scores if self.pool == "mean" else view.best, self.spec_.keep))
