"""A window of tiles."""

from __future__ import annotations

from cloudchamber.attention.model import kept
from cloudchamber.attention.vsa.model import Tiles, TileView
from cloudchamber.attention.vsa.policies.local_plus import apart
from cloudchamber.core.policy import Policy


class SlidingTiles(Policy):
    """Read the K nearest tiles, whatever is in them: Sliding Tile Attention.

    References
    ----------
    Fast Video Generation with Sliding Tile Attention.
    """

    def select(self, view: TileView) -> Tiles:
        """By distance; ties to the lower tile."""
        return Tiles(kept(-apart(view.places), self.spec_.keep))
