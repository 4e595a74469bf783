"""The floor: blocks by lot."""

from __future__ import annotations

from cloudchamber.attention.model import Scene, Selection, kept
from cloudchamber.core.policy import Policy


class RandomBlocks(Policy):
    """Read the own block and others drawn without replacement, for every head and query block anew.

    Examples
    --------
    >>> RandomBlocks()
    RandomBlocks()
    """

    def select(self, scene: Scene) -> Selection:
        """Draw."""
        shape = (len(scene.q), scene.q_blocks.count, scene.k_blocks.count)
        return Selection(kept(self.rng_.random(shape), scene.keep))
