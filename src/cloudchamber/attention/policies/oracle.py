"""True attention, which costs as much as dense attention to know."""

from __future__ import annotations

from cloudchamber.attention.model import Scene, Selection, block_mass, kept
from cloudchamber.attention.policies.pooled_top_p import best_of_all
from cloudchamber.core.policy import Policy


class OracleTopK(Policy):
    """Read the ``keep`` key blocks of each row with the most true attention: what no selector with as many blocks in every row can beat."""

    def select(self, scene: Scene) -> Selection:
        """By attention computed in full."""
        return Selection(kept(block_mass(scene.q, scene.k, scene.q_blocks, scene.k_blocks), scene.keep))


class OracleTopP(Policy):
    """Spend the same number of blocks where true attention is, over all rows and heads: the optimum at this budget."""

    def select(self, scene: Scene) -> Selection:
        """By attention computed in full."""
        return Selection(best_of_all(block_mass(scene.q, scene.k, scene.q_blocks, scene.k_blocks), scene.keep))
