"""Greedy that looks one step ahead: to the GPU whose pressure will be least."""

from __future__ import annotations

import math

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Policy
from cloudchamber.placement.model import Instance, Placement


class GreedyAfter(Policy):
    """Take models by falling rate / slo; put each where the pressure after it has come is least.

    Examples
    --------
    >>> from cloudchamber.placement.model import Model
    >>> GreedyAfter().place(Instance(2, 80.0, (Model(20.0, 9.0, 6.0), Model(10.0, 6.0, 6.0), Model(10.0, 3.0, 6.0))))
    Placement(gpu_of=(0, 1, 1))
    """

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        free_gb = [instance.gpu_memory_gb] * instance.gpus
        load = [0.0] * instance.gpus
        gpu_of = [0] * len(instance.models)
        for index in sorted(range(len(instance.models)), key=lambda i: -instance.models[i].demand):
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
