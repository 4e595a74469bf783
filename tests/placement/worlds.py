"""Instances for tests, and the slow oracle: every placement, tried."""

from __future__ import annotations

import math
from itertools import product

from hypothesis import strategies as st

from cloudchamber.placement import Instance, Model


def instance(gpus, *models, memory_gb=80.0):
    """``instance(2, (20, 9, 6), ...)``: size, rate, SLO."""
    return Instance(gpus, memory_gb, tuple(Model(*map(float, each)) for each in models))


def kvpr(each: Instance, gpu_of) -> float:
    """The definition, in plain Python; infinite where a GPU has no memory left."""
    worst = 0.0
    for gpu in range(each.gpus):
        there = [model for model, its in zip(each.models, gpu_of, strict=True) if its == gpu]
        free_gb = each.gpu_memory_gb - sum(model.size_gb for model in there)
        if there:
            worst = max(worst, sum(model.request_rate / model.slo for model in there) / free_gb if free_gb > 0 else math.inf)
    return worst


def least(each: Instance) -> float:
    """The optimum by trying every placement."""
    return min(kvpr(each, gpu_of) for gpu_of in product(range(each.gpus), repeat=len(each.models)))


models = st.tuples(st.integers(5, 45), st.integers(0, 9), st.integers(1, 9))
small = st.builds(lambda gpus, drawn: instance(gpus, *drawn), st.integers(1, 3), st.lists(models, min_size=1, max_size=6))
