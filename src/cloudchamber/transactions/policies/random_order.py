"""Any order: the floor."""

from __future__ import annotations

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.model import Batch


class Random(Policy):
    """Run transactions in a uniformly drawn order."""

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return a permutation drawn with the trial's generator."""
        return tuple(self.rng_.permutation(len(batch)).tolist())
