"""Several trees at once: some partitions take another way where that saves more VM time than egress it costs."""

from __future__ import annotations

import numpy as np

from cloudchamber.broadcast.model import Broadcast, Edge, Job
from cloudchamber.broadcast.policies.dreyfus_wagner import steiner_tree
from cloudchamber.broadcast.policies.tree_search import Parents, TreeSearch, bill, billed, links, neighbours
from cloudchamber.core.policy import Integer, Policy

MOST = 10  # destinations for which the exact tree is tried


class StripedTrees(Policy):
    """Start from :class:`TreeSearch`; give some of the partitions of a tree another one, while the whole bill falls.

    Other trees are those one change away, and the tree of least egress without the link that decides the time.

    Pays only where partitions share links and VMs are dear compared with egress.

    Parameters
    ----------
    rounds : int, default 12
        Changes at most; each is the best of all.

    Examples
    --------
    >>> StripedTrees()
    StripedTrees()
    """

    _constraints = {"rounds": Integer(0, 10_000)}

    def __init__(self, rounds: int = 12) -> None:
        self.rounds = rounds

    def plan(self, job: Job) -> Broadcast:
        """Return the trees."""
        start = TreeSearch()
        start.reset(self.spec_, self.rng_)
        trees: list[Parents] = [{b: a for a, b in tree} for tree in start.plan(job).trees]
        cost = bill(self.spec_, job, trees)
        for _ in range(self.rounds if self.spec_.shared else 0):
            detour = self._around(billed(self.spec_, job, trees)[1], job)
            options: list[tuple[float, int, list[Parents]]] = []
            for old in {links(tree): tree for tree in trees}.values():
                at = [i for i, tree in enumerate(trees) if tree == old]
                for new in [*neighbours(self.spec_, job, old), *detour]:
                    for count in sorted({1, len(at) // 2, len(at)} - {0}):
                        changed = [new if i in at[:count] else tree for i, tree in enumerate(trees)]
                        options.append((bill(self.spec_, job, changed), len(options), changed))
            best = min(options, key=lambda option: option[:2], default=None)
            if best is None or best[0] >= cost * (1 - 1e-12):
                break
            cost, _, trees = best
        return Broadcast(tuple(links(tree) for tree in trees))

    def _around(self, link: Edge, job: Job) -> list[Parents]:
        """Return the tree of least egress without a link, if there is one."""
        price = np.array(self.spec_.price_usd_gb)
        price[link] = np.inf
        if len(job.destinations) > MOST:
            return []
        tree = steiner_tree(price, job.source, job.destinations)[1]
        return [{b: a for a, b in tree}] if tree else []
