"""The trivial policies: put a model where it fits, and think no further."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Policy
from cloudchamber.placement.model import Instance, Placement


class FirstFit(Policy):
    """Take models as they come; put each on the first GPU that has the memory.

    Examples
    --------
    >>> from cloudchamber.placement.model import Model
    >>> FirstFit().place(Instance(2, 80.0, (Model(50.0, 9.0, 6.0), Model(40.0, 6.0, 6.0), Model(20.0, 3.0, 6.0))))
    Placement(gpu_of=(0, 1, 0))
    """

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        return Placement(tuple(fitted(instance, lambda index: range(instance.gpus), range(len(instance.models)))))


class RoundRobinFit(Policy):
    """Deal models to the GPUs in turn, skipping those that are full.

    Examples
    --------
    >>> from cloudchamber.placement.model import Model
    >>> RoundRobinFit().place(Instance(2, 80.0, (Model(50.0, 9.0, 6.0), Model(40.0, 6.0, 6.0), Model(20.0, 3.0, 6.0))))
    Placement(gpu_of=(0, 1, 0))
    """

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        gpus = instance.gpus
        return Placement(tuple(fitted(instance, lambda index: [(index + k) % gpus for k in range(gpus)], range(len(instance.models)))))


class RandomFit(Policy):
    """Take models from large to small; put each on a random GPU that has the memory.

    Examples
    --------
    >>> RandomFit()
    RandomFit()
    """

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        order = sorted(range(len(instance.models)), key=lambda i: -instance.models[i].size_gb)
        return Placement(tuple(fitted(instance, lambda index: self.rng_.permutation(instance.gpus).tolist(), order)))


def fitted(instance: Instance, gpus_by_taste: Callable[[int], Iterable[int]], order: Iterable[int]) -> list[int]:
    """Return the GPU of every model: the first to its taste that has more memory left than the model takes."""
    free_gb = [instance.gpu_memory_gb] * instance.gpus
    gpu_of = [0] * len(instance.models)
    for index in order:
        size_gb = instance.models[index].size_gb
        fitting = [gpu for gpu in gpus_by_taste(index) if size_gb < free_gb[gpu]]
        if not fitting:
            raise InputError(f"model {index} ({size_gb:g} GB) fits on no GPU any more.")
        gpu_of[index] = fitting[0]
        free_gb[fitting[0]] -= size_gb
    return gpu_of
