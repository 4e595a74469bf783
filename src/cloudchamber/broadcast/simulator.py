"""The verified world: it takes trees as names of regions only, and bills and times them by its own prices and speeds.

Every link's flow is its throughput, unless a region's links together exceed what it can send (or receive): then each of them
gets at most an equal part of that limit. As published, a partition has a link's whole flow and a gigabyte counts as a gigabit; with
``shared`` the partitions on a link share it, and a gigabyte is eight gigabits. A tree is pipelined: its slowest link decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudchamber.core.candidate import Candidate
from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import decode, encode

from .model import Broadcast, BroadcastSpec, Edge, Job


@dataclass(frozen=True, eq=False)
class Transfer:
    """What a valid broadcast costs.

    Parameters
    ----------
    egress_usd, vm_usd, time_s : float
    partitions_on : mapping of Edge to int
        How many partitions take each link.
    flow_gbps : mapping of Edge to float
    relays : int
        Regions that take part without needing the data.
    slowest : Edge
        The link that decides the time.
    """

    egress_usd: float
    vm_usd: float
    time_s: float
    partitions_on: dict[Edge, int]
    flow_gbps: dict[Edge, float]
    relays: int
    slowest: Edge

    @property
    def cost_usd(self) -> float:
        """The whole bill."""
        return self.egress_usd + self.vm_usd


def run(policy: Any, spec: BroadcastSpec, job: Job, rng: np.random.Generator) -> Transfer | tuple[str, ...]:
    """Ask the policy for its trees, with copies of network and job; return what they cost, or their violations.

    Raises
    ------
    CandidateError
        For anything the policy raises.
    """
    asked = policy if isinstance(policy, Candidate) else Candidate(policy)
    asked.reset(decode(encode(spec), BroadcastSpec), rng)
    return measured(asked.plan(decode(encode(job), Job)), spec, job)


def measured(answer: Any, spec: BroadcastSpec, job: Job) -> Transfer | tuple[str, ...]:
    """Return the bill of an answer, or all that is wrong with it."""
    try:
        broadcast = decode(encode(answer), Broadcast)  # a copy of plain whole numbers, whatever the policy made its own of
    except (InputError, TypeError, ValueError, NotImplementedError, OverflowError, RecursionError) as error:
        return (f"the answer is no Broadcast: {error}",)
    if len(broadcast.trees) != job.partitions:
        return (f"{len(broadcast.trees)} trees for {job.partitions} partitions; give one for each",)
    wrong = {tree: violation(tree, spec, job) for tree in dict.fromkeys(broadcast.trees)}
    found = tuple(f"partition {i}: {wrong[tree]}" for i, tree in enumerate(broadcast.trees) if wrong[tree])
    return found[:5] if found else transfer(broadcast.trees, spec, job)


def violation(tree: Sequence[Edge], spec: BroadcastSpec, job: Job) -> str:
    """Return what keeps the links from being a tree that brings the data everywhere; empty if nothing."""
    regions, parent = len(spec.regions), {}
    for a, b in tree:
        if not (0 <= a < regions and 0 <= b < regions):
            return f"link {a} to {b} names no region; they are 0 to {regions - 1}"
        if a == b or not np.isfinite(spec.price_usd_gb[a, b]) or not spec.throughput_gbps[a, b] > 0:
            return f"there is no link from {spec.regions[a]} to {spec.regions[b]}"
        if b in parent or b == job.source:
            return f"{spec.regions[b]} gets the data twice"
        parent[b] = a
    missing = [each for each in job.destinations if each not in parent]
    if missing:
        return f"{spec.regions[missing[0]]} does not get the data"
    for each in parent:
        at, steps = each, 0
        while at in parent and steps <= len(parent):
            at, steps = parent[at], steps + 1
        if at != job.source:
            return f"what {spec.regions[each]} gets does not come from {spec.regions[job.source]}"
    return ""


def transfer(trees: Sequence[Sequence[Edge]], spec: BroadcastSpec, job: Job) -> Transfer:
    """Return what valid trees cost."""
    part_gb = job.volume_gb / job.partitions
    partitions_on = Counter(edge for tree in trees for edge in tree)
    flow = flows(partitions_on, spec)
    if spec.shared:
        seconds = {edge: count * part_gb * 8 / flow[edge] for edge, count in partitions_on.items()}
    else:
        seconds = {edge: part_gb / flow[edge] for edge in partitions_on}
    slowest = max(sorted(seconds), key=seconds.__getitem__)
    taking_part = {job.source, *(region for edge in partitions_on for region in edge)}
    egress_usd = sum(sorted(count * part_gb * float(spec.price_usd_gb[edge]) for edge, count in partitions_on.items()))
    vm_usd = len(taking_part) * spec.vms * spec.vm_usd_h / 3600 * seconds[slowest]
    relays = len(taking_part) - 1 - len(job.destinations)
    return Transfer(egress_usd, vm_usd, seconds[slowest], dict(partitions_on), flow, relays, slowest)


def flows(edges: Iterable[Edge], spec: BroadcastSpec) -> dict[Edge, float]:
    """Return the flow of every link in use: its throughput, or an equal part of a limit that its region's links exceed together."""
    flow = {edge: float(spec.throughput_gbps[edge]) for edge in sorted(edges)}
    for end, limits in ((0, spec.egress_gbps), (1, spec.ingress_gbps)):
        degree = Counter(edge[end] for edge in flow)
        total: dict[int, float] = dict.fromkeys(degree, 0.0)
        for edge in flow:
            total[edge[end]] += float(spec.throughput_gbps[edge])
        for edge, gbps in flow.items():
            region = edge[end]
            if total[region] > limits[region]:
                flow[edge] = min(gbps, float(limits[region]) / degree[region])
    return flow
