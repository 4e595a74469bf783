"""The published EPLB algorithm, written down again in plain Python: the golden baseline of tests and benchmark.

Layer by layer and item by item, as the original works; lists, no arrays. Ties go to the lowest index.
"""

from __future__ import annotations


def balanced_packing(weight: list[float], packs: int) -> tuple[list[int], list[int]]:
    """Heaviest item first, each into the lightest pack that has room; pack and rank in it of each item."""
    per_pack = len(weight) // packs
    if per_pack == 1:
        return list(range(len(weight))), [0] * len(weight)
    pack_of, rank_of = [-1] * len(weight), [-1] * len(weight)
    weights, items = [0.0] * packs, [0] * packs
    for item in sorted(range(len(weight)), key=lambda i: -weight[i]):
        pack = min((i for i in range(packs) if items[i] < per_pack), key=weights.__getitem__)
        pack_of[item], rank_of[item] = pack, items[pack]
        weights[pack] += weight[item]
        items[pack] += 1
    return pack_of, rank_of


def replicate_experts(weight: list[float], slots: int) -> tuple[list[int], list[int]]:
    """Spare slots one by one to the largest load per replica; expert of each replica, replicas of each expert."""
    expert_of, count = list(range(len(weight))), [1] * len(weight)
    for _ in range(slots - len(weight)):
        hottest = max(range(len(weight)), key=lambda i: weight[i] / count[i])
        expert_of.append(hottest)
        count[hottest] += 1
    return expert_of, count


def rebalance_layer(weight: list[float], slots: int, groups: int, nodes: int, gpus: int) -> list[int]:
    """The expert of each slot of one layer."""
    size, groups_per_node = len(weight) // groups, groups // nodes
    of_group = [sum(weight[g * size : (g + 1) * size]) for g in range(groups)]
    node_of, rank_of = balanced_packing(of_group, nodes)
    by_place = [0] * len(weight)  # experts, node by node
    for g in range(groups):
        for i in range(size):
            by_place[(node_of[g] * groups_per_node + rank_of[g]) * size + i] = g * size + i
    made: list[int] = []
    experts_per_node, slots_per_node, gpus_per_node = len(weight) // nodes, slots // nodes, gpus // nodes
    for node in range(nodes):
        experts = by_place[node * experts_per_node : (node + 1) * experts_per_node]
        local = [weight[e] for e in experts]
        expert_of, count = replicate_experts(local, slots_per_node)
        pack_of, rank_in = balanced_packing([local[e] / count[e] for e in expert_of], gpus_per_node)
        placed = [0] * slots_per_node
        for replica, expert in enumerate(expert_of):
            placed[pack_of[replica] * (slots // gpus) + rank_in[replica]] = experts[expert]
        made += placed
    return made


def rebalance_experts(weight: list[list[float]], slots: int, groups: int, nodes: int, gpus: int) -> list[list[int]]:
    """Hierarchical where the nodes divide the groups, else global."""
    if groups % nodes:
        groups = nodes = 1
    return [rebalance_layer([float(x) for x in layer], slots, groups, nodes, gpus) for layer in weight]
