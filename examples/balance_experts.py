"""Balance the experts of a model under drifting load: every policy, a load history of one's own, and the drop-in for an engine."""

import json
import tempfile
from pathlib import Path

import numpy as np

from cloudchamber import study
from cloudchamber.core.registry import load_study
from cloudchamber.moe.balance import Incremental, Popularity, rebalance_experts

# a load history as vLLM records it: tokens of every expert, layer and window
history = Popularity(alpha=1.2).history(np.random.default_rng(0), windows=12, layers=2, experts=32, groups=4)
path = Path(tempfile.mkdtemp()) / "mine.json"
path.write_text(json.dumps({"load_history": [{"logical_expert_load": window.tolist()} for window in history]}))

mine = load_study("moe.balance").workload(path, devices=8, slots=40)
results = study("moe.balance", ["GreedyEPLB", "Zigzag", "LocalSearch", "Incremental", "Static"], [mine], seeds=3)
print(results.table(), end="\n\n")
for row in results.summary():
    trials = [trial.outcome.metrics for trial in results.of(row.workload, row.policy)]
    moved, total = (sum(each[key] for each in trials) / len(trials) for key in ("moved_gb", "total_s"))
    print(f"{row.policy:12} moved {moved:6.1f} GB, steps and moves {total:5.2f} s")

# the same in a serving engine: first plan, then few changes
phy2log, log2phy, count = rebalance_experts(history[0], 40, 4, 1, 8)
later, _, _ = rebalance_experts(history[1], 40, 4, 1, 8, policy=Incremental(max_moves=4), prev=phy2log)
print(f"\n{(later != phy2log).sum()} of {later.size} slots changed")
