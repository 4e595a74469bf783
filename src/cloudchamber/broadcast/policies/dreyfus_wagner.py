"""The cheapest tree there is, by dynamic programming over subsets of destinations."""

from __future__ import annotations

import numpy as np

from cloudchamber.broadcast.model import Broadcast, Edge, Job
from cloudchamber.broadcast.policies.takahashi_matsuyama import TakahashiMatsuyama, all_paths
from cloudchamber.core.policy import Integer, Policy


class DreyfusWagner(Policy):
    """Send along the tree with the least egress: the exact directed Steiner tree, in 3^k * regions steps for k destinations.

    A tree for a set of destinations, seen from a region, is a cheapest path to a region where it splits in two smaller ones.

    Parameters
    ----------
    max_destinations : int, default 10
        With more, :class:`TakahashiMatsuyama` decides instead.

    Examples
    --------
    >>> DreyfusWagner(max_destinations=4)
    DreyfusWagner(max_destinations=4)

    References
    ----------
    Dreyfus, Wagner: The Steiner problem in graphs.
    """

    _constraints = {"max_destinations": Integer(0, 14)}

    def __init__(self, max_destinations: int = 10) -> None:
        self.max_destinations = max_destinations

    def plan(self, job: Job) -> Broadcast:
        """Return the same tree for every partition."""
        if len(job.destinations) > self.max_destinations:
            other = TakahashiMatsuyama()
            other.reset(self.spec_, self.rng_)
            return other.plan(job)
        tree = steiner_tree(self.spec_.price_usd_gb, job.source, job.destinations)[1]
        return Broadcast((tree,) * job.partitions)


def steiner_tree(price: np.ndarray, source: int, destinations: tuple[int, ...]) -> tuple[float, tuple[Edge, ...]]:
    """Return the least dollars per GB of a tree from the source to all destinations, and its links; infinite where there is none."""
    dollars, after = all_paths(price)
    regions, full = len(price), (1 << len(destinations)) - 1
    least = np.full((full + 1, regions), np.inf)  # least[set, region]: the cheapest tree from the region to the set
    split_at = np.zeros((full + 1, regions), dtype=np.int64)  # where that tree first splits
    part = np.zeros((full + 1, regions), dtype=np.int64)  # one of the two sets it splits into, seen from the split
    for subset in range(1, full + 1):
        if subset & (subset - 1) == 0:
            destination = destinations[subset.bit_length() - 1]
            least[subset], split_at[subset] = dollars[:, destination], destination
            continue
        merged, smaller = np.full(regions, np.inf), (subset - 1) & subset
        while smaller > subset ^ smaller:
            both = least[smaller] + least[subset ^ smaller]
            is_better = both < merged
            merged[is_better], part[subset, is_better] = both[is_better], smaller
            smaller = (smaller - 1) & subset
        through = dollars + merged
        split_at[subset] = through.argmin(axis=1)
        least[subset] = through.min(axis=1)
    if not np.isfinite(least[full, source]):
        return float("inf"), ()
    links: set[Edge] = set()
    waiting = [(full, source)]
    while waiting:
        subset, here = waiting.pop()
        there = int(split_at[subset, here])
        while here != there:
            step = int(after[here, there])
            links.add((here, step))
            here = step
        if subset & (subset - 1):
            smaller = int(part[subset, there])
            waiting += [(smaller, there), (subset ^ smaller, there)]
    return float(least[full, source]), pruned(links, source, destinations)


def pruned(links: set[Edge], source: int, destinations: tuple[int, ...]) -> tuple[Edge, ...]:
    """Return a tree out of links that reach everything: the first way to each region, without branches nobody needs."""
    parent, queue = {source: source}, [source]
    for here in queue:
        for there in sorted(b for a, b in links if a == here):
            if there not in parent:
                parent[there] = here
                queue.append(there)
    needed = set()
    for destination in destinations:
        here = destination
        while here != source and here not in needed:
            needed.add(here)
            here = parent[here]
    return tuple((parent[each], each) for each in queue if each in needed)
