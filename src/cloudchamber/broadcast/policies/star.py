"""The trivial policies: from the source to everybody, and along random links."""

from __future__ import annotations

from cloudchamber.broadcast.model import Broadcast, Job
from cloudchamber.core.policy import Policy


class DirectStar(Policy):
    """Send to every destination straight from the source.

    Examples
    --------
    >>> DirectStar().plan(Job(0, (2, 3), 300.0, 2)).trees
    (((0, 2), (0, 3)), ((0, 2), (0, 3)))
    """

    def plan(self, job: Job) -> Broadcast:
        """Return the same star for every partition."""
        star = tuple((job.source, each) for each in job.destinations)
        return Broadcast((star,) * job.partitions)


class RandomTree(Policy):
    """Take the destinations in random order; each gets the data from a random one that has it.

    Examples
    --------
    >>> RandomTree()
    RandomTree()
    """

    def plan(self, job: Job) -> Broadcast:
        """Return one random tree for all partitions."""
        holders, tree = [job.source], []
        for each in self.rng_.permutation(job.destinations).tolist():
            tree.append((holders[int(self.rng_.integers(len(holders)))], each))
            holders.append(each)
        return Broadcast((tuple(tree),) * job.partitions)
