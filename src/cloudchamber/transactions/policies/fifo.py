"""Arrival order: what a database does when nobody decides."""

from __future__ import annotations

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.model import Batch


class FIFO(Policy):
    """Run transactions in the order in which they arrived.

    Examples
    --------
    >>> from cloudchamber.transactions.model import batch_of
    >>> FIFO().order(batch_of(["r-1", "w-1"]))
    (0, 1)
    """

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return 0, 1, 2, ..."""
        return tuple(range(len(batch)))
