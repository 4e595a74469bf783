"""EPLB with heaps, compiled: exactly the reference's plan in O(n log m)."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

import numpy as np

from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Choice, Policy
from cloudchamber.moe.balance.model import Plan
from cloudchamber.moe.balance.policies.greedy_eplb import regions


class LPTHeap(Policy):
    """The same plan as GreedyEPLB, with a heap of experts and a heap of devices instead of a search through them.

    Choose it where the balancer runs on the serving path.

    Parameters
    ----------
    mode : {"auto", "hierarchical", "global"}, default "auto"
        As in :class:`GreedyEPLB`.
    """

    _constraints = {"mode": Choice("auto", "hierarchical", "global")}

    def __init__(self, mode: str = "auto") -> None:
        self.mode = mode

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return a fresh plan; the previous one is ignored."""
        spec = self.spec_
        groups, nodes = regions(self.mode, spec)
        return Plan(_plan(spec.checked(load), spec.slots, spec.devices, groups, nodes))


@njit
def replicate(load: np.ndarray, slots: int) -> np.ndarray:
    """Expert of each replica: spare slots go to the largest load per replica; ties, and a row without load, in order."""
    experts = len(load)
    if not load.any():
        return np.arange(slots) % experts
    replicas, count = np.arange(slots), np.ones(experts, dtype=np.int64)
    heap = [(-load[expert], expert) for expert in range(experts)]
    heapify(heap)
    for slot in range(experts, slots):
        hottest = heap[0][1]
        replicas[slot] = hottest
        count[hottest] += 1
        heapreplace(heap, (-load[hottest] / count[hottest], hottest))
    return replicas


@njit
def pack(load: np.ndarray, packs: int) -> np.ndarray:
    """Slot of each item: sorted descending, each into the lightest pack with room, ties to the lowest pack."""
    items = len(load)
    room = items // packs
    slot = np.arange(items)
    if room == 1:
        return slot
    held = np.zeros(packs, dtype=np.int64)
    heap = [(0.0, each) for each in range(packs)]
    for item in np.argsort(-load, kind="mergesort"):
        weight, lightest = heap[0]
        slot[item] = lightest * room + held[lightest]
        held[lightest] += 1
        if held[lightest] < room:
            heapreplace(heap, (weight + load[item], lightest))
        else:
            heappop(heap)
    return slot


@njit
def _plan(load: np.ndarray, slots: int, devices: int, groups: int, nodes: int) -> np.ndarray:
    layers, experts = load.shape
    size, node_experts, node_slots = experts // groups, experts // nodes, slots // nodes
    made = np.empty((layers, slots), dtype=np.int64)
    order = np.empty(experts, dtype=np.int64)
    for layer in range(layers):
        group_slot = pack(load[layer].reshape(groups, size).sum(axis=1), nodes)
        for group in range(groups):
            for i in range(size):
                order[group_slot[group] * size + i] = group * size + i
        for node in range(nodes):
            own = order[node * node_experts : (node + 1) * node_experts]
            node_load = load[layer][own]
            replicas = replicate(node_load, node_slots)
            count = np.bincount(replicas, minlength=node_experts)
            slot = pack((node_load / count)[replicas], devices // nodes)
            for i in range(node_slots):
                made[layer, node * node_slots + slot[i]] = own[replicas[i]]
    return made
