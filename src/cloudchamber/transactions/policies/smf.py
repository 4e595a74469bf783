"""Shortest makespan first: look at a few waiting transactions, append the one that delays the schedule least."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.policy import Integer, Policy
from cloudchamber.transactions.model import Batch, Timeline


class SMF(Policy):
    """Append, again and again, the best of ``k`` transactions drawn from those that wait.

    The best is the one after which the makespan is smallest; ties go to the earliest start, then to the lowest number. The first
    transaction is drawn. One pass costs about n * k placements.

    Parameters
    ----------
    k : int, default 10
        Candidates drawn at each step.

    References
    ----------
    Towards Optimal Transaction Scheduling.
    """

    _constraints = {"k": Integer(1)}

    def __init__(self, k: int = 10) -> None:
        self.k = k

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the order in which transactions were appended."""
        waiting = list(range(len(batch)))
        line = Timeline(batch, self.spec_.model)
        order: list[int] = []
        while waiting:
            count = min(self.k if order else 1, len(waiting))
            drawn = np.array([waiting[i] for i in self.rng_.choice(len(waiting), count, replace=False)])
            starts = line.starts(drawn)
            makespans = np.maximum(line.makespan, starts + batch.length[drawn])
            best = int(drawn[np.lexsort((drawn, starts, makespans))[0]])
            line.place(best)
            waiting.remove(best)
            order.append(best)
        return tuple(order)
