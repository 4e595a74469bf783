"""Local search on trees by the whole bill: egress and the time of the VMs."""

from __future__ import annotations

from collections import Counter

import numpy as np

from cloudchamber.broadcast.model import Broadcast, BroadcastSpec, Edge, Job
from cloudchamber.broadcast.policies.dreyfus_wagner import DreyfusWagner
from cloudchamber.core.policy import Integer, Policy

Parents = dict[int, int]


class TreeSearch(Policy):
    """Start from the tree of least egress; hang regions elsewhere, add and drop relays, while the whole bill falls.

    Many trees have the same egress, but not the same speed: links that leave one region share its limit, so chains are faster than stars.

    Parameters
    ----------
    rounds : int, default 50
        Changes at most; each is the best of all.

    Examples
    --------
    >>> TreeSearch()
    TreeSearch()
    """

    _constraints = {"rounds": Integer(0, 10_000)}

    def __init__(self, rounds: int = 50) -> None:
        self.rounds = rounds

    def plan(self, job: Job) -> Broadcast:
        """Return the same tree for every partition."""
        start = DreyfusWagner()
        start.reset(self.spec_, self.rng_)
        parent = {b: a for a, b in start.plan(job).trees[0]}
        cost = bill(self.spec_, job, [parent] * job.partitions)
        for _ in range(self.rounds):
            best = min(
                ((bill(self.spec_, job, [each] * job.partitions), i, each) for i, each in enumerate(neighbours(self.spec_, job, parent))),
                key=lambda found: found[:2],
                default=None,
            )
            if best is None or best[0] >= cost * (1 - 1e-12):
                break
            cost, _, parent = best
        return Broadcast((links(parent),) * job.partitions)


def neighbours(spec: BroadcastSpec, job: Job, parent: Parents) -> list[Parents]:
    """Return all trees one change away: a region gets the data from another one of the tree, directly or over a new relay."""
    found = []
    members = [job.source, *parent]
    outside = [region for region in range(len(spec.regions)) if region not in members]
    for child in parent:
        for giver in members:
            if is_below(giver, child, parent):
                continue
            if giver != parent[child] and np.isfinite(spec.price_usd_gb[giver, child]):
                found.append(without_idle_relays({**parent, child: giver}, job))
            least = spec.price_usd_gb[giver, outside] + spec.price_usd_gb[outside, child] if outside else np.zeros(0)
            for place in np.argsort(least, kind="stable")[:5]:  # the five cheapest relays
                if np.isfinite(least[place]):
                    found.append(without_idle_relays({**parent, child: outside[place], outside[place]: giver}, job))
    return found


def is_below(region: int, top: int, parent: Parents) -> bool:
    """Whether a region gets its data from ``top``, or is it."""
    while region != top and region in parent:
        region = parent[region]
    return region == top


def without_idle_relays(parent: Parents, job: Job) -> Parents:
    """Return the tree without regions that neither need nor pass on the data."""
    while True:
        givers = set(parent.values())
        idle = [region for region in parent if region not in givers and region not in job.destinations]
        if not idle:
            return parent
        parent = {b: a for b, a in parent.items() if b not in idle}


def links(parent: Parents) -> tuple[Edge, ...]:
    """Return the tree's links."""
    return tuple((a, b) for b, a in parent.items())


def bill(spec: BroadcastSpec, job: Job, parents: list[Parents]) -> float:
    """Return egress plus VM time of the partitions' trees, in USD."""
    return billed(spec, job, parents)[0]


def billed(spec: BroadcastSpec, job: Job, parents: list[Parents]) -> tuple[float, Edge]:
    """Return egress plus VM time of the partitions' trees, in USD, and the link that decides the time."""
    part_gb = job.volume_gb / job.partitions
    partitions_on = Counter((a, b) for parent in parents for b, a in parent.items())
    seconds, slowest = 0.0, (job.source, job.source)
    sent, received = Counter(a for a, _ in partitions_on), Counter(b for _, b in partitions_on)
    out_gbps: Counter[int] = Counter()
    in_gbps: Counter[int] = Counter()
    for a, b in partitions_on:
        out_gbps[a] += spec.throughput_gbps[a, b]
        in_gbps[b] += spec.throughput_gbps[a, b]
    for (a, b), count in partitions_on.items():
        gbps = spec.throughput_gbps[a, b]
        if out_gbps[a] > spec.egress_gbps[a]:
            gbps = min(gbps, spec.egress_gbps[a] / sent[a])
        if in_gbps[b] > spec.ingress_gbps[b]:
            gbps = min(gbps, spec.ingress_gbps[b] / received[b])
        takes = (count * part_gb * 8 if spec.shared else part_gb) / gbps
        if takes > seconds:
            seconds, slowest = takes, (a, b)
    regions = len({job.source, *received})
    egress_usd = sum(count * part_gb * spec.price_usd_gb[link] for link, count in partitions_on.items())
    return float(egress_usd + regions * spec.vms * spec.vm_usd_h / 3600 * seconds), slowest
