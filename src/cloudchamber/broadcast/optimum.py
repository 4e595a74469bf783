"""What no broadcast can cost less than: the exact least egress, and a proven least of VM time beside it.

Every partition's tree costs at least the directed Steiner tree of the job (Dreyfus and Wagner, exact). As published, a broadcast
whose slowest link has flow f takes only links that can have f, so its egress is at least that of the Steiner tree over these alone:
the least over all f of that egress plus the time at f is a bound, and found in few steps because egress only rises with f.
With shared links, the data must leave the source and enter every destination, which bounds the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .model import Broadcast, BroadcastSpec, Job
from .policies.dreyfus_wagner import steiner_tree
from .simulator import Transfer, measured

DESTINATIONS = 10  # the table over their subsets takes seconds beyond


@dataclass(frozen=True, eq=False)
class Least:
    """The bound (USD), the exact least egress, and the transfer of the tree that attains the egress."""

    cost_usd: float
    egress_usd: float
    is_exact: bool
    transfer: Transfer | None


def least_cost(spec: BroadcastSpec, job: Job) -> Least:
    """Return what no broadcast of the job can cost less than.

    With more than 10 destinations the egress bound is the cheapest link into each of them.
    """
    hourly = (1 + len(job.destinations)) * spec.vms * spec.vm_usd_h / 3600
    if len(job.destinations) > DESTINATIONS:
        into = np.where(np.eye(len(spec.regions), dtype=bool), np.inf, spec.price_usd_gb).min(axis=0)
        egress_usd = job.volume_gb * float(into[list(job.destinations)].sum())
        return Least(egress_usd + hourly * least_time_s(spec, job), egress_usd, False, None)
    dollars, tree = steiner_tree(spec.price_usd_gb, job.source, job.destinations)
    found = measured(Broadcast((tree,) * job.partitions), spec, job)
    assert isinstance(found, Transfer), found
    egress_usd = min(dollars * job.volume_gb, found.egress_usd)
    cost_usd = egress_usd + hourly * least_time_s(spec, job) if spec.shared else _over_flows(spec, job, hourly, found.cost_usd)
    is_exact = found.cost_usd <= cost_usd * (1 + 1e-12)
    return Least(min(cost_usd, found.cost_usd), egress_usd, is_exact, found)


def capacity_gbps(spec: BroadcastSpec) -> np.ndarray:
    """Return the flow every link could have at best: alone at both its ends."""
    alone: np.ndarray = np.minimum(spec.throughput_gbps, np.minimum(spec.egress_gbps[:, None], spec.ingress_gbps[None, :]))
    return alone


def least_time_s(spec: BroadcastSpec, job: Job) -> float:
    """Return seconds that any broadcast takes."""
    capacity = capacity_gbps(spec)
    if spec.shared:  # a region's links together have no more than its limit, and each no more than its throughput
        out = min(float(spec.egress_gbps[job.source]), float(capacity[job.source].sum()))
        into = min(min(float(spec.ingress_gbps[each]), float(capacity[:, each].sum())) for each in job.destinations)
        return job.volume_gb * 8 / min(out, into)
    widest = capacity[job.source].copy()
    is_done = np.zeros(len(widest), dtype=bool)
    is_done[job.source] = True
    while not is_done.all():
        here = int(np.where(is_done, -1.0, widest).argmax())
        is_done[here] = True
        widest = np.where(is_done, widest, np.maximum(widest, np.minimum(widest[here], capacity[here])))
    return job.volume_gb / job.partitions / float(widest[list(job.destinations)].min())


def _over_flows(spec: BroadcastSpec, job: Job, hourly: float, above_usd: float) -> float:
    """Return the least over flows f of (Steiner tree over links that can have f) + (VM time at f)."""
    capacity, part_gb = capacity_gbps(spec), job.volume_gb / job.partitions
    flows = np.unique(capacity[np.isfinite(spec.price_usd_gb) & (capacity > 0)])

    def egress_usd(flow: float) -> float:
        price = np.where(capacity >= flow, spec.price_usd_gb, np.inf)
        return steiner_tree(price, job.source, job.destinations)[0] * job.volume_gb

    least_usd, place = above_usd, 0
    while place < len(flows):
        now = egress_usd(float(flows[place]))
        if now >= least_usd:
            break
        low, high = place, len(flows)  # the last flow at which egress is not yet higher
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if egress_usd(float(flows[middle])) <= now + 1e-9 else (low, middle)
        least_usd = min(least_usd, now + hourly * part_gb / float(flows[low]))
        place = low + 1
    return least_usd
