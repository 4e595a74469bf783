"""Expert-parallel load balancing: how often each expert is replicated, and on which GPU each replica lies.

The problem
-----------
The experts of a mixture-of-experts layer lie on different GPUs, routing is skewed, and the GPU with the hottest experts sets the time of
the step. A :class:`BalancePolicy` fills a few spare slots with replicas and re-packs all slots window after window; its plan is judged on
the *next* window, on the weights it moves, and on the time it takes to make.

>>> from cloudchamber import study
>>> results = study("moe.balance", policies=["GreedyEPLB-global", "Zigzag", "Static"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["GreedyEPLB-global"] > rows["Static"]
True

Your own load history: :func:`cloudchamber.moe.balance.histories.read_history` says in which format. Your own policy: a class with
``reset`` and ``plan``; see :class:`BalancePolicy`. In place of a serving engine's EPLB: :func:`rebalance_experts`.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "model": ("BalancePolicy", "ClusterSpec", "Plan"),
    "histories": ("Popularity", "read_history"),
    "predictors": ("EWMA", "Last", "Predictor", "Quantile", "WindowMean"),
    "triggers": ("BalanceState", "CostBenefit", "Every", "Threshold", "Trigger"),
    "simulator": ("Run", "Simulator", "StepCost"),
    "optimum": ("best_plan", "least_top_load"),
    "policies.exact_ilp": ("ExactILP",),
    "policies.fixed": ("RandomPlan", "Static"),
    "policies.greedy_eplb": ("GreedyEPLB",),
    "policies.incremental": ("Incremental",),
    "policies.local_search": ("LocalSearch",),
    "policies.lpt_heap": ("LPTHeap",),
    "policies.zigzag": ("Zigzag",),
    "rebalance": ("rebalance_experts",),
    "workloads": ("BalanceWorkload",),
    "study": ("BalanceStudy",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
