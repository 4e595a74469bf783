"""Grow a tree by the cheapest link to a destination that has nothing yet."""

from __future__ import annotations

from cloudchamber.broadcast.model import Broadcast, Job
from cloudchamber.core.policy import Policy


class NearestDestination(Policy):
    """Again and again, copy to the destination that is cheapest to reach from any region that has the data (Prim's rule).

    Many prices are equal, so the order in which ties are met matters: here, earlier holders and earlier destinations of the job first.

    Examples
    --------
    >>> NearestDestination()
    NearestDestination()
    """

    def plan(self, job: Job) -> Broadcast:
        """Return the same tree for every partition."""
        price = self.spec_.price_usd_gb
        holders, left, tree = [job.source], list(job.destinations), []
        while left:
            here, there = min(((a, b) for a in holders for b in left), key=lambda link: price[link])
            tree.append((here, there))
            holders.append(there)
            left.remove(there)
        return Broadcast((tuple(tree),) * job.partitions)
