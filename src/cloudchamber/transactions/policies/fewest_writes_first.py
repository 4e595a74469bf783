"""Readers before writers: reads of one key may run at the same time, writes may not."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.model import WRITE, Batch


class FewestWritesFirst(Policy):
    """Run transactions from the one that writes least to the one that writes most; ties in order of arrival."""

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the order by number of writes."""
        owner = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
        writes = np.bincount(owner[batch.kind == WRITE], minlength=len(batch))
        return tuple(writes.argsort(kind="stable").tolist())
