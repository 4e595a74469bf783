"""The floor: tiles by lot."""

from __future__ import annotations

from cloudchamber.attention.model import kept
from cloudchamber.attention.vsa.model import Tiles, TileView
from cloudchamber.core.policy import Policy


class RandomTiles(Policy):
    """Read K tiles drawn without replacement."""

    def select(self, view: TileView) -> Tiles:
        """Draw."""
        return Tiles(kept(self.rng_.random(view.scores.shape), self.spec_.keep))
