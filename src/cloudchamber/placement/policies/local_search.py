"""Local search: relieve the GPU under the most pressure until no move or swap can."""

from __future__ import annotations

import math

from cloudchamber.core.policy import Policy
from cloudchamber.placement.model import Instance, Placement
from cloudchamber.placement.policies.greedy_mixed import GreedyMixed


class LocalSearch(Policy):
    """Start from :class:`GreedyMixed`; move a model off the worst GPU, or swap it for another, while both GPUs end below its pressure.

    Of all such changes the one that leaves the lower of the two GPUs' pressures is taken, so every step relieves the worst GPU and ends.

    Examples
    --------
    >>> from cloudchamber.placement.model import Model
    >>> LocalSearch().place(Instance(2, 80.0, (Model(20.0, 1.0, 6.0), Model(10.0, 6.0, 6.0), Model(10.0, 5.0, 6.0))))
    Placement(gpu_of=(1, 0, 1))
    """

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        gpu_of = list(GreedyMixed().place(instance).gpu_of)
        while True:
            pressures = [pressure(instance, [i for i, gpu in enumerate(gpu_of) if gpu == each]) for each in range(instance.gpus)]
            worst = pressures.index(max(pressures))
            changed, least = None, pressures[worst] * (1 - 1e-12)
            on_worst = [i for i, gpu in enumerate(gpu_of) if gpu == worst]
            for other in range(instance.gpus):
                on_other = [i for i, gpu in enumerate(gpu_of) if gpu == other]
                for out in on_worst if other != worst else ():
                    for back in (None, *on_other):  # None: a move, else a swap
                        here = [i for i in on_worst if i != out] + ([] if back is None else [back])
                        there = [i for i in on_other if i != back] + [out]
                        after = max(pressure(instance, here), pressure(instance, there))
                        if after < least:
                            changed, least = (out, other, back), after
            if changed is None:
                return Placement(tuple(gpu_of))
            out, other, back = changed
            gpu_of[out] = other
            if back is not None:
                gpu_of[back] = worst


def pressure(instance: Instance, models: list[int]) -> float:
    """Return the pressure of a GPU with these models; infinite if they leave no memory."""
    free_gb = instance.gpu_memory_gb - sum(instance.models[i].size_gb for i in models)
    return sum(instance.models[i].demand for i in models) / free_gb if free_gb > 0 else math.inf
