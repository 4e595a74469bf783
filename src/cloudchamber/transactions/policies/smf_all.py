"""Full greedy: look at every waiting transaction, append the one that delays the schedule least."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.model import Batch, Timeline


class SMFAll(Policy):
    """Append, again and again, the transaction after which the makespan is smallest.

    Ties go to the earliest start, then to the lowest number; the first transaction is drawn. One pass costs about n * n / 2 placements.
    """

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the order in which transactions were appended."""
        if not len(batch):
            return ()
        line = Timeline(batch, self.spec_.model)
        best = int(self.rng_.integers(len(batch)))
        waiting = np.arange(len(batch))
        order: list[int] = []
        while True:
            line.place(best)
            order.append(best)
            waiting = waiting[waiting != best]
            if not len(waiting):
                return tuple(order)
            starts = line.starts(waiting)
            makespans = np.maximum(line.makespan, starts + batch.length[waiting])
            best = int(waiting[np.lexsort((waiting, starts, makespans))[0]])
