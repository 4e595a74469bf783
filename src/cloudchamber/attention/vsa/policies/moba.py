"""The own tile for sure."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import kept
from cloudchamber.attention.vsa.model import Tiles, TileView
from cloudchamber.core.policy import Policy


class MoBA(Policy):
    """Read the own tile and the K - 1 best scores beside it: Mixture of Block Attention, routed a tile at a time.

    References
    ----------
    MoBA: Mixture of Block Attention for Long-Context LLMs.
    """

    def select(self, view: TileView) -> Tiles:
        """The diagonal first."""
        return Tiles(kept(np.where(np.eye(len(view.scores), dtype=bool), np.inf, view.scores), self.spec_.keep))
