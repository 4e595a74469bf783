"""EPLB with heaps, compiled: exactly the reference's plan in O(n log m)."""

from __future__ import annotations

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
def _sink(heap: np.ndarray, key: np.ndarray, size: int, at: int) -> None:
    """Restore the heap below a place whose key has grown; the least (key, index) is on top."""
    moving = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size:
            left, right = heap[child], heap[child + 1]
            if key[right] < key[left] or (key[right] == key[left] and right < left):
                child += 1
        if key[moving] < key[heap[child]] or (key[moving] == key[heap[child]] and moving < heap[child]):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moving


@njit
def replicate(load: np.ndarray, slots: int) -> np.ndarray:
    """Expert of each replica: spare slots go to the largest load per replica; ties, and a row without load, in order."""
    experts = len(load)
    if not load.any():
        return np.arange(slots) % experts
    replicas, count = np.arange(slots), np.ones(experts, dtype=np.int64)
    heap, key = np.arange(experts), -load
    for at in range(experts // 2 - 1, -1, -1):
        _sink(heap, key, experts, at)
    for slot in range(experts, slots):
        hottest = heap[0]
        replicas[slot] = hottest
        count[hottest] += 1
        key[hottest] = -load[hottest] / count[hottest]
        _sink(heap, key, experts, 0)
    return replicas


@njit
def pack(load: np.ndarray, packs: int) -> np.ndarray:
    """Slot of each item: sorted descending, each into the lightest pack with room, ties to the lowest pack."""
    items = len(load)
    room = items // packs
    slot = np.arange(items)
    if room == 1:
        return slot
    held, weight = np.zeros(packs, dtype=np.int64), np.zeros(packs)
    heap, size = np.arange(packs), packs
    for item in np.argsort(-load, kind="mergesort"):
        lightest = heap[0]
        slot[item] = lightest * room + held[lightest]
        held[lightest] += 1
        weight[lightest] += load[item]
        if held[lightest] == room:
            size -= 1
            heap[0] = heap[size]
        _sink(heap, weight, size, 0)
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
