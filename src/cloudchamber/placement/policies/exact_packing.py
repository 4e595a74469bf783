"""The optimum by bin packing over subsets, for up to 20 models."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Integer, Policy
from cloudchamber.placement.model import Instance, Placement
from cloudchamber.placement.policies.local_search import LocalSearch

MOST = 20  # models: beyond, the table over all subsets has gigabytes


class ExactPacking(Policy):
    """Ask whether any placement has less pressure than the best known, until none has.

    For a known pressure p the question is bin packing: do items of weight rate/slo + p * size fit into as many bins of p * memory
    as there are GPUs? A table over all subsets of models (fewest bins, then the emptiest last bin) answers it exactly
    in 2^n * n steps.

    Parameters
    ----------
    max_models : int, default 18
        With more models, :class:`LocalSearch` decides instead.

    Examples
    --------
    >>> from cloudchamber.placement.model import Model
    >>> ExactPacking(max_models=4)
    ExactPacking(max_models=4)
    """

    _constraints = {"max_models": Integer(0, MOST)}

    def __init__(self, max_models: int = 18) -> None:
        self.max_models = max_models

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        if len(instance.models) > self.max_models:
            return LocalSearch().place(instance)
        return Placement(tuple(least_pressure(instance).tolist()))


def least_pressure(instance: Instance) -> np.ndarray:
    """Return the placement of least pressure, up to one part in 10^9.

    Raises
    ------
    InputError
        If the models do not fit on the GPUs at all.
    """
    demand = np.array([model.demand for model in instance.models])
    size_gb = np.array([model.size_gb for model in instance.models])
    memory_gb, gpus = instance.gpu_memory_gb, min(instance.gpus, len(demand))
    best: np.ndarray = packed(size_gb, memory_gb * (1 - 1e-12), gpus)
    if best[0] < 0:
        raise InputError(f"{size_gb.sum():g} GB of models do not fit on {instance.gpus} GPUs of {memory_gb:g} GB; give more GPUs.")
    high = pressure_of(best, demand, size_gb, gpus, memory_gb)
    spare_gb = instance.gpus * memory_gb - size_gb.sum()
    low = max(float(demand.sum() / spare_gb), float((demand / (memory_gb - size_gb)).max()))  # no placement has less
    guess = 1.1 * low  # the answer is near; then halves, and at last just below the best, to be sure
    while low < high * (1 - 1e-9):
        guess = min(guess, high * (1 - 1e-9))
        better = packed(demand + guess * size_gb, guess * memory_gb, gpus)
        if better[0] < 0:
            low = guess
        else:
            best, high = better, pressure_of(better, demand, size_gb, gpus, memory_gb)
        guess = (low + high) / 2 if high < 1.01 * low else 1.02 * low
        if low < high < 1.0005 * low:
            guess = high
    return best


def pressure_of(gpu_of: np.ndarray, demand: np.ndarray, size_gb: np.ndarray, gpus: int, memory_gb: float) -> float:
    """Return the pressure of the worst GPU."""
    load = np.bincount(gpu_of, demand, gpus)
    return float((load / (memory_gb - np.bincount(gpu_of, size_gb, gpus))).max())


@njit
def packed(weight, capacity, bins):  # type: ignore[no-untyped-def]
    """Return the bin of every item, or -1 in the first place if they do not fit."""
    items = len(weight)
    count = np.full(1 << items, bins + 1, dtype=np.int8)  # bins opened for a subset, the fewest
    fill = np.zeros(1 << items)  # of the last of them, the least
    last = np.zeros(1 << items, dtype=np.int8)
    count[0], fill[0] = 0, capacity
    for subset in range(1 << items):
        if count[subset] > bins:
            continue
        for item in range(items):
            if subset >> item & 1:
                continue
            larger = subset | 1 << item
            if fill[subset] + weight[item] <= capacity:
                used, level = count[subset], fill[subset] + weight[item]
            else:
                used, level = count[subset] + 1, weight[item]
            if level <= capacity and (used < count[larger] or (used == count[larger] and used <= bins and level < fill[larger])):
                count[larger], fill[larger], last[larger] = used, level, item
    bin_of = np.full(items, -1)
    subset = (1 << items) - 1
    if count[subset] > bins:
        return bin_of
    while subset:
        item = last[subset]
        bin_of[item] = count[subset] - 1
        subset ^= 1 << item
    return bin_of
