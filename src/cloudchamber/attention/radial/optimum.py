"""A bound on band rules."""

from __future__ import annotations

import numpy as np

from .fields import Field
from .model import RadialSpec


def least_error(field: Field, spec: RadialSpec) -> float:
    """No rule with the same budget has a smaller mean L1 error.

    All pairs at one distance in frames and in tokens are read or not. Each such set has a weight (the mean of the heads') and a cost in
    pairs; taking the most weight for a pair first, the last set in part, is the optimum where any sets may be chosen.
    """
    f, s = spec.frames, spec.tokens
    frames, tokens, always = field.parts(sink_read=spec.sink)
    weight = np.einsum("hd,hm->dm", frames, tokens) / len(frames)
    between = np.where(np.arange(f) == 0, f, 2 * (f - np.arange(f))) - (1 if spec.sink else 0)  # frame 0 as a key is read anyway
    within = np.where(np.arange(s) == 0, s, 2 * (s - np.arange(s)))
    cost = np.outer(between, within).astype(np.float64)
    left = spec.density * (f * s) ** 2 - (f * s * s if spec.sink else 0)
    order = np.argsort(-(weight / np.maximum(cost, 1e-9)), axis=None, kind="stable")
    spent = np.cumsum(cost.ravel()[order])
    whole = spent <= left
    caught = float(weight.ravel()[order][whole].sum())
    first = int(whole.sum())
    if first < len(order):
        before = float(spent[first - 1]) if first else 0.0
        caught += float(weight.ravel()[order[first]]) * max(0.0, left - before) / max(float(cost.ravel()[order[first]]), 1e-9)
    recall = (caught + float(always.mean())) / (f * s)
    return 2 * max(0.0, 1 - recall)
