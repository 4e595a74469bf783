"""True attention between tiles."""

from __future__ import annotations

from typing import Any

from cloudchamber.attention.model import kept
from cloudchamber.attention.vsa.model import Tiles, TileView
from cloudchamber.core.policy import Policy


class OracleTiles(Policy):
    """Read the K tiles with the most attention, computed in full: the optimum at K tiles a row."""

    clairvoyant = True

    def reset(self, spec: Any, rng: Any) -> None:
        """Begin with the first head."""
        super().reset(spec, rng)
        self.head_ = 0

    def select(self, view: TileView) -> Tiles:
        """By the truth."""
        mass = self.spec_.future[self.head_]
        self.head_ += 1
        return Tiles(kept(mass, self.spec_.keep))
