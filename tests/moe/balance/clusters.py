"""Random clusters and loads, and slow oracles."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import strategies as st

from cloudchamber.moe.balance import ClusterSpec


@st.composite
def clusters(draw, max_experts=12, layers=3):
    """A valid cluster."""
    nodes = draw(st.sampled_from([1, 2]))
    devices = nodes * draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 2, 4]))
    experts = groups * draw(st.integers(1, max(1, max_experts // groups)))
    least = -(-experts // devices)
    per_device = draw(st.integers(least, min(experts, least + 3)))
    return ClusterSpec(draw(st.integers(1, layers)), experts, per_device * devices, devices, nodes, groups)


def loads(spec: ClusterSpec, seed: int, *, ties: bool = False) -> np.ndarray:
    """A random load, small whole numbers (zeros, equals) or all different."""
    rng = np.random.default_rng(seed)
    shape = (spec.layers, spec.experts)
    if ties:
        return rng.integers(0, 5, shape).astype(float)
    return np.exp(rng.normal(0, 1.2, shape)) * 1000


def best_top_load(load: np.ndarray, slots: int, devices: int) -> float:
    """Least largest device load of one layer, by trying every filling of every slot."""
    best = np.inf
    for filling in product(range(len(load)), repeat=slots):
        count = np.bincount(filling, minlength=len(load))
        if (count == 0).any():
            continue
        share = (load / count)[list(filling)]
        best = min(best, share.reshape(devices, -1).sum(axis=1).max())
    return best


def reset(policy, spec: ClusterSpec, seed: int = 0):
    """The policy, ready for use."""
    policy.reset(spec, np.random.default_rng(seed))
    return policy
