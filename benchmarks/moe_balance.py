"""Plan time of the balancers against the published algorithm, 58 layers of 256 experts in 288 slots on 32 GPUs, in one run.

Two peers: the reference algorithm with tensors, item by item, as it is published (only where torch is installed), and the same
algorithm in plain Python lists, the golden baseline of the tests, which is much the faster of the two. All are interleaved; medians.

Run: ``.venv/bin/python benchmarks/moe_balance.py`` (half a minute; ``--json`` writes rows). Bars: LPTHeap <= 1/40 and Zigzag
<= 1/100 of the reference, Zigzag < 10 ms; Incremental and LocalSearch have none.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.moe.balance.reference import rebalance_experts

from cloudchamber.core.results import Table
from cloudchamber.moe.balance import GreedyEPLB, Incremental, LocalSearch, LPTHeap, Plan, Zigzag
from cloudchamber.moe.balance.workloads import named_workloads

WORKLOAD, ROUNDS = "v3-58x256", 5
Planner = Callable[[np.ndarray], np.ndarray]


def with_tensors(load: np.ndarray, slots: int, groups: int, nodes: int, gpus: int) -> np.ndarray:
    """The reference algorithm on torch tensors: packing reads and adds up tensor elements one by one, replication is batched."""
    import torch

    def pack(weight, packs):
        rows, items = weight.shape
        room = items // packs
        if room == 1:
            return torch.arange(items).expand(rows, -1), torch.zeros((rows, items), dtype=torch.int64)
        order = weight.sort(dim=-1, descending=True, stable=True).indices
        pack_of, rank = torch.full((rows, items), -1), torch.full((rows, items), -1)
        for row in range(rows):
            weights, held = [0] * packs, [0] * packs
            for item in order[row]:
                lightest = min((p for p in range(packs) if held[p] < room), key=weights.__getitem__)
                pack_of[row, item], rank[row, item] = lightest, held[lightest]
                weights[lightest] += weight[row, item]
                held[lightest] += 1
        return pack_of, rank

    def replicate(weight, total):
        rows, experts = weight.shape
        expert_of, count = torch.arange(total).repeat(rows, 1), torch.ones_like(weight)
        for slot in range(experts, total):
            hottest = (weight / count).max(dim=-1).indices
            expert_of[:, slot] = hottest
            count[torch.arange(rows), hottest] += 1
        return expert_of, count

    weight = torch.from_numpy(load).double()
    layers, experts = weight.shape
    size = experts // groups
    node, rank = pack(weight.unflatten(-1, (groups, size)).sum(-1), nodes)
    place = ((node * (groups // nodes) + rank) * size).unsqueeze(-1) + torch.arange(size)
    order = place.flatten(1).argsort(-1)
    local = weight.gather(-1, order).view(layers * nodes, -1)
    expert_of, count = replicate(local, slots // nodes)
    device, rank = pack((local / count).gather(-1, expert_of), gpus // nodes)
    slot = (device * (slots // gpus) + rank).argsort(-1)
    placed = expert_of.gather(-1, slot).view(layers, nodes, -1) + (torch.arange(nodes) * (experts // nodes)).view(1, -1, 1)
    return order.gather(-1, placed.flatten(1)).numpy()


def planners(history: np.ndarray) -> dict[str, Planner]:
    """Everything that is timed: a load in, a table of slots out."""
    spec = named_workloads()[WORKLOAD].cluster
    first = Plan(np.array(rebalance_experts(history[0].tolist(), spec.slots, 1, 1, spec.devices)))

    def ours(policy) -> Planner:
        policy.reset(spec, np.random.default_rng(0))
        return lambda load: policy.plan(load, first).phy2log

    made: dict[str, Planner] = {
        "reference, lists, global": lambda load: np.array(rebalance_experts(load.tolist(), spec.slots, 1, 1, spec.devices)),
        "reference, lists, hierarchical": lambda load: np.array(
            rebalance_experts(load.tolist(), spec.slots, spec.groups, spec.nodes, spec.devices)
        ),
        "GreedyEPLB-global": ours(GreedyEPLB("global")),
        "GreedyEPLB": ours(GreedyEPLB()),
        "LPTHeap-global": ours(LPTHeap("global")),
        "LPTHeap": ours(LPTHeap()),
        "Zigzag": ours(Zigzag()),
        "LocalSearch": ours(LocalSearch()),
        "Incremental": ours(Incremental()),
    }
    try:
        import torch
    except ImportError:
        print("torch is not installed: without the tensor peer", file=sys.stderr)
        return made
    torch.set_num_threads(1)
    return {
        "reference, tensors, global": lambda load: with_tensors(load, spec.slots, 1, 1, spec.devices),
        "reference, tensors, hierarchical": lambda load: with_tensors(load, spec.slots, spec.groups, spec.nodes, spec.devices),
        **made,
    }


def main() -> None:
    """Print the plan time of each and its ratio to the references; all of one kind must give the same plan."""
    history = named_workloads()[WORKLOAD].world(0).simulator.history
    subjects = planners(history)
    for name, plan in subjects.items():
        if "tensors" not in name:
            plan(history[0])  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for load in history[1 : ROUNDS + 1]:
        tables = {}
        for name, plan in subjects.items():
            start = time.perf_counter()
            tables[name] = plan(load)
            seconds[name].append(time.perf_counter() - start)
        for kind, same in (("global", ("GreedyEPLB-global", "LPTHeap-global")), ("hierarchical", ("GreedyEPLB", "LPTHeap"))):
            for name in (*same, *(each for each in subjects if each.startswith("reference") and each.endswith(kind))):
                assert np.array_equal(tables[name], tables[f"reference, lists, {kind}"]), name
    if "--json" in sys.argv:
        for name, found in seconds.items():
            for seed, each in enumerate(found):
                row = {"study": "moe.balance", "workload": WORKLOAD, "policy": name, "seed": seed, "plan_s": each, "void": None}
                print(json.dumps({**row, "generated": True, "evidence": "measured"}))
        return
    median = {name: statistics.median(found) for name, found in seconds.items()}
    peers = [name for name in median if name.startswith("reference")]
    rows = []
    for name, each in median.items():
        own = "hierarchical" if name in ("GreedyEPLB", "LPTHeap") or name.endswith("hierarchical") else "global"
        against = {peer.split(", ")[1]: f"{median[peer] / each:,.0f}" for peer in peers if peer.endswith(own)}
        rows.append((name, f"{each * 1e3:,.1f}", against.get("lists", ""), against.get("tensors", "")))
    print(Table(("planner", "ms", "times faster than lists", "than tensors"), tuple(rows)))


if __name__ == "__main__":
    main()
