"""The cheapest path to each destination, one by one: the published baseline."""

from __future__ import annotations

import math

import numpy as np

from cloudchamber.broadcast.model import Broadcast, Edge, Job
from cloudchamber.core.policy import Policy


class DijkstraPaths(Policy):
    """Send to every destination over the cheapest path from the source; paths share the links they have in common.

    It does not see that a copy which is already near makes the next one cheap.

    Examples
    --------
    >>> DijkstraPaths()
    DijkstraPaths()

    References
    ----------
    Cloudcast: High-Throughput, Cost-Aware Overlay Multicast in the Cloud.
    """

    def plan(self, job: Job) -> Broadcast:
        """Return the tree of cheapest paths for every partition."""
        before = cheapest_paths(self.spec_.price_usd_gb, job.source)
        tree: dict[Edge, None] = {}
        for destination in job.destinations:
            at = destination
            while at != job.source:
                tree[before[at], at] = None
                at = before[at]
        return Broadcast((tuple(tree),) * job.partitions)


def cheapest_paths(price: np.ndarray, source: int) -> list[int]:
    """Return the region before each on its cheapest path from the source (Dijkstra)."""
    regions = len(price)
    dollars, before, is_done = [math.inf] * regions, [source] * regions, [False] * regions
    dollars[source] = 0.0
    for _ in range(regions):
        here = min((region for region in range(regions) if not is_done[region]), key=dollars.__getitem__)
        is_done[here] = True
        for there in range(regions):
            if not is_done[there] and dollars[here] + price[here, there] < dollars[there]:
                dollars[there] = dollars[here] + float(price[here, there])
                before[there] = here
    return before
