"""MULTIFIT: guess the pressure, see whether everything packs under it, guess again."""

from __future__ import annotations

from cloudchamber.core.policy import Integer, Policy
from cloudchamber.placement.model import Instance, Placement
from cloudchamber.placement.policies.greedy_mixed import GreedyMixed


class Multifit(Policy):
    """Bisect on the pressure p; for each guess pack items of weight rate/slo + p * size into bins of p * memory, best fit decreasing.

    A GPU keeps its pressure below p exactly if sum(rate/slo) <= p * (memory - sum(size)): for a known p the problem is bin
    packing, and the fair weight of a GB is the pressure itself.

    Parameters
    ----------
    guesses : int, default 40

    Examples
    --------
    >>> from cloudchamber.placement.model import Model
    >>> Multifit().place(Instance(2, 80.0, (Model(20.0, 1.0, 6.0), Model(10.0, 6.0, 6.0), Model(10.0, 5.0, 6.0))))
    Placement(gpu_of=(1, 0, 1))

    References
    ----------
    Coffman, Garey, Johnson: An application of bin-packing to multiprocessor scheduling.
    """

    _constraints = {"guesses": Integer(1)}

    def __init__(self, guesses: int = 40) -> None:
        self.guesses = guesses

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        best = GreedyMixed().place(instance).gpu_of
        low, high = 0.0, largest_pressure(instance, best)
        for _ in range(self.guesses):
            guess = (low + high) / 2
            packed = best_fit_decreasing(instance, guess)
            if packed is None:
                low = guess
            else:
                best, high = tuple(packed), min(guess, largest_pressure(instance, packed))
        return Placement(best)


def best_fit_decreasing(instance: Instance, pressure: float) -> list[int] | None:
    """Return a placement below the pressure, or None if this rule finds none."""
    weight = [model.demand + pressure * model.size_gb for model in instance.models]
    room = [pressure * instance.gpu_memory_gb] * instance.gpus
    gpu_of = [0] * len(weight)
    for index in sorted(range(len(weight)), key=lambda i: -weight[i]):
        fitting = [gpu for gpu in range(instance.gpus) if weight[index] <= room[gpu]]
        if not fitting:
            return None
        gpu_of[index] = min(fitting, key=room.__getitem__)
        room[gpu_of[index]] -= weight[index]
    return gpu_of


def largest_pressure(instance: Instance, gpu_of: list[int] | tuple[int, ...]) -> float:
    """Return the pressure of the worst GPU."""
    demand, free_gb = [0.0] * instance.gpus, [instance.gpu_memory_gb] * instance.gpus
    for model, gpu in zip(instance.models, gpu_of, strict=True):
        demand[gpu] += model.demand
        free_gb[gpu] -= model.size_gb
    return max(each / left for each, left in zip(demand, free_gb, strict=True))
