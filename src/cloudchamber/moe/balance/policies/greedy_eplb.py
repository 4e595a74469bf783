"""DeepSeek's EPLB in plain NumPy: replicate the hottest experts, then deal replicas to the least loaded device."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Choice, Policy
from cloudchamber.moe.balance.model import ClusterSpec, Plan


class GreedyEPLB(Policy):
    """Replicate greedily, pack greedily: the reference algorithm, layer by layer in lockstep.

    Spare slots go one by one to the expert with the most load per replica, which is optimal for the largest replica. Replicas, sorted
    by load, each go to the least loaded device that still has a free slot. Hierarchically, groups of experts are first packed onto nodes
    and each node is solved by itself, so that a token that is routed to few groups stays on few nodes.

    Ties go to the lowest index. Unlike the reference, layers (or nodes) without any load spread their spare slots.

    Parameters
    ----------
    mode : {"auto", "hierarchical", "global"}, default "auto"
        ``auto`` is hierarchical when the nodes divide the groups, else global, as the reference chooses.

    References
    ----------
    deepseek-ai/EPLB.
    """

    _constraints = {"mode": Choice("auto", "hierarchical", "global")}

    def __init__(self, mode: str = "auto") -> None:
        self.mode = mode

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return a fresh plan; the previous one is ignored."""
        spec = self.spec_
        load = spec.checked(load)
        groups, nodes = regions(self.mode, spec)
        experts = self.experts_by_node(load, groups, nodes)
        node_load = np.take_along_axis(load, experts, axis=1).reshape(spec.layers * nodes, -1)
        node_slots, node_devices = spec.slots // nodes, spec.devices // nodes
        local, count = replicate(node_load, node_slots)
        replica_load = np.take_along_axis(node_load / count, local, axis=1)
        device, place = pack(replica_load, node_devices)
        slot = device * spec.slots_per_device + place
        placed = np.empty_like(local)
        np.put_along_axis(placed, slot, local, axis=1)
        placed = placed.reshape(spec.layers, nodes, node_slots) + (np.arange(nodes) * (spec.experts // nodes))[:, None]
        return Plan(np.take_along_axis(experts, placed.reshape(spec.layers, spec.slots), axis=1))

    def experts_by_node(self, load: np.ndarray, groups: int, nodes: int) -> np.ndarray:
        """Experts in the order of the nodes their groups are packed onto, shape (layers, experts)."""
        layers, experts = load.shape
        size = experts // groups
        node, place = pack(load.reshape(layers, groups, size).sum(axis=2), nodes)
        order = np.argsort(node * groups + place, axis=1)  # groups, node by node
        return np.reshape(order[:, :, None] * size + np.arange(size), (layers, experts))


def regions(mode: str, spec: ClusterSpec) -> tuple[int, int]:
    """Groups and nodes that the mode solves with: global treats everything as one node and one group.

    Raises
    ------
    InputError
        For ``hierarchical`` where the nodes do not divide the groups.
    """
    fits = spec.groups % spec.nodes == 0
    if mode == "hierarchical" and not fits:
        raise InputError(
            f"hierarchical needs nodes that divide the groups, got {spec.nodes} nodes, {spec.groups} groups; use mode='global'."
        )
    return (spec.groups, spec.nodes) if fits and mode != "global" else (1, 1)


def replicate(load: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Give spare slots to the largest load per replica: the expert of each replica (rows, slots), and replicas of each expert."""
    rows, experts = load.shape
    load = np.where(load.any(axis=1, keepdims=True), load, 1.0)  # without any load, spread
    count = np.ones((rows, experts), dtype=np.int64)
    replicas = np.tile(np.arange(slots), (rows, 1))
    row = np.arange(rows)
    for slot in range(experts, slots):
        hottest = np.argmax(load / count, axis=1)
        replicas[:, slot] = hottest
        count[row, hottest] += 1
    return replicas, count


def pack(load: np.ndarray, packs: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort items descending, put each into the lightest pack with room: pack and place in it, both (rows, items)."""
    rows, items = load.shape
    room = items // packs
    pack_of, place = np.tile(np.arange(items), (rows, 1)), np.zeros((rows, items), dtype=np.int64)
    if room == 1:  # nothing to balance: in the order given, as the reference does
        return pack_of, place
    weight, held = np.zeros((rows, packs)), np.zeros((rows, packs), dtype=np.int64)
    row = np.arange(rows)
    for item in np.argsort(-load, axis=1, kind="stable").T:
        lightest = np.argmin(np.where(held < room, weight, np.inf), axis=1)
        pack_of[row, item], place[row, item] = lightest, held[row, lightest]
        weight[row, lightest] += load[row, item]
        held[row, lightest] += 1
    return pack_of, place
