"""A bound on what must be computed."""

from __future__ import annotations

import numpy as np

from .workloads import Instance


def least_density(instance: Instance, recall: float) -> float:
    """No choice of pairs of these clusters that catches ``recall`` in each head computes a smaller share of all pairs of tokens.

    A pair of clusters catches (queries) x (its attention) and costs (queries) x (keys). Taking those with the most for their cost, the last
    one in part, is the optimum of the relaxation, head by head.
    """
    total = 0.0
    heads = len(instance.mass)
    for head in range(heads):
        q, k = (each.sizes[head if len(each.sizes) > 1 else 0].astype(np.float64) for each in (instance.q_blocks, instance.k_blocks))
        caught = (instance.mass[head] * q[:, None] / q.sum()).ravel()
        cost = (np.outer(q, k) / (q.sum() * k.sum())).ravel()
        there = cost > 0
        caught, cost = caught[there], cost[there]
        order = np.argsort(-(caught / cost), kind="stable")
        sums = np.cumsum(caught[order])
        first = int(np.searchsorted(sums, recall - 1e-12))
        before = float(sums[first - 1]) if first else 0.0
        total += float(cost[order][:first].sum())
        if first < len(order) and recall > before:
            total += float(cost[order[first]]) * (recall - before) / float(caught[order[first]])
    return total / heads
