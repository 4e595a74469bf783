"""Short transactions first, as a queue in front of a processor would have it."""

from __future__ import annotations

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.model import Batch


class ShortestFirst(Policy):
    """Run transactions from the shortest to the longest; ties in order of arrival."""

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the order by length."""
        return tuple(batch.length.argsort(kind="stable").tolist())
