"""Grow a tree by the cheapest path to a destination, relays allowed."""

from __future__ import annotations

import numpy as np

from cloudchamber.broadcast.model import Broadcast, Job
from cloudchamber.core.policy import Policy


class TakahashiMatsuyama(Policy):
    """Again and again, join the destination that is cheapest to reach over any path from any region of the tree.

    The classic heuristic for Steiner trees. Unlike :class:`NearestDestination` it may pass through regions that do not need the data.

    Examples
    --------
    >>> TakahashiMatsuyama()
    TakahashiMatsuyama()

    References
    ----------
    Takahashi, Matsuyama: An approximate solution for the Steiner problem in graphs.
    """

    def plan(self, job: Job) -> Broadcast:
        """Return the same tree for every partition."""
        dollars, after = all_paths(self.spec_.price_usd_gb)
        holders, left, tree = [job.source], list(job.destinations), []
        while left:
            here, there = min(((a, b) for a in holders for b in left), key=lambda pair: dollars[pair])
            while here != there:
                step = int(after[here, there])
                tree.append((here, step))
                holders.append(step)
                here = step
            left = [each for each in left if each not in holders]
        return Broadcast((tuple(tree),) * job.partitions)


def all_paths(price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cheapest dollars per GB between all pairs, and the first step of the way (Floyd, Warshall)."""
    dollars = np.array(price)
    np.fill_diagonal(dollars, 0.0)
    after = np.tile(np.arange(len(price)), (len(price), 1))
    for middle in range(len(price)):
        through = dollars[:, middle, None] + dollars[None, middle, :]
        is_better = through < dollars
        dollars[is_better] = through[is_better]
        after[is_better] = np.broadcast_to(after[:, middle, None], after.shape)[is_better]
    return dollars, after
