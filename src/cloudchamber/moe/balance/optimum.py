"""What no plan can beat: a bound for every layer, and the exact optimum where layers are small."""

from __future__ import annotations

import numpy as np

from .model import ClusterSpec, Plan
from .policies.exact_ilp import ExactILP

EXACT_EXPERTS, EXACT_SLOTS = 16, 20  # of a layer that is solved exactly


def least_top_load(load: np.ndarray, spec: ClusterSpec) -> np.ndarray:
    """Return a lower bound of the largest device load, of shape (..., layers), for loads of shape (..., layers, experts).

    Some device carries at least the mean; and with a largest load below M, expert e needs load[e] / M replicas, on devices of
    its own, so no plan gets below the smallest M for which the slots suffice. Giving spare slots to the largest load per replica
    finds it. Since devices are alike, the linear relaxation of the placement is no better: its optimum spreads every expert evenly.
    """
    rows = load.reshape(-1, spec.experts).astype(np.float64)
    share, count, row = rows.copy(), np.ones(rows.shape, dtype=np.int64), np.arange(len(rows))
    for _ in range(spec.slots - spec.experts):
        hottest = np.argmax(np.where(count < spec.devices, share, -1.0), axis=1)
        count[row, hottest] += count[row, hottest] < spec.devices
        share[row, hottest] = rows[row, hottest] / count[row, hottest]
    mean = rows.sum(axis=1) / spec.devices
    return np.maximum(mean, share.max(axis=1)).reshape(load.shape[:-1])  # type: ignore[no-any-return]


def is_small(spec: ClusterSpec) -> bool:
    """Whether layers are small enough to be solved exactly for every window."""
    return spec.experts <= EXACT_EXPERTS and spec.slots <= EXACT_SLOTS


def best_plan(load: np.ndarray, spec: ClusterSpec) -> Plan:
    """Return the best plan for a window whose load is known."""
    policy = ExactILP(max_experts=EXACT_EXPERTS)
    policy.reset(spec, None)
    return policy.plan(load, None)
