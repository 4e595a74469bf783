"""Greedy by demand and size together: what is large, in either way, is placed first."""

from __future__ import annotations

import math

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Policy, Real
from cloudchamber.placement.model import Instance, Placement


class GreedyMixed(Policy):
    """Take models by falling rate / slo + size_weight * size; put each where the pressure after it has come is least.

    A large model hurts a GPU as a demanding one does, by taking its memory; placed late it finds only bad places.

    Parameters
    ----------
    size_weight : float, default 0.05
        Demand that a GB of size counts for in the order. Near the final pressure it makes the order that of the items' true weights.

    Examples
    --------
    >>> from cloudchamber.placement.model import Model
    >>> GreedyMixed().place(Instance(2, 80.0, (Model(20.0, 1.0, 6.0), Model(10.0, 6.0, 6.0), Model(10.0, 5.0, 6.0))))
    Placement(gpu_of=(1, 0, 1))
    """

    _constraints = {"size_weight": Real(0, 1e6)}

    def __init__(self, size_weight: float = 0.05) -> None:
        self.size_weight = size_weight

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        free_gb = [instance.gpu_memory_gb] * instance.gpus
        load = [0.0] * instance.gpus
        gpu_of = [0] * len(instance.models)
        weight = [model.demand + self.size_weight * model.size_gb for model in instance.models]
        for index in sorted(range(len(weight)), key=lambda i: -weight[i]):
            model = instance.models[index]
            best, least = -1, math.inf
            for gpu in range(instance.gpus):
                left_gb = free_gb[gpu] - model.size_gb
                if left_gb > 0 and (load[gpu] + model.demand) / left_gb < least:
                    best, least = gpu, (load[gpu] + model.demand) / left_gb
            if best < 0:
                raise InputError(f"model {index} ({model.size_gb:g} GB) fits on no GPU any more.")
            gpu_of[index] = best
            free_gb[best] -= model.size_gb
            load[best] += model.demand
        return Placement(tuple(gpu_of))
