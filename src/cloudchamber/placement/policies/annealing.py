"""Simulated annealing over moves and swaps."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Integer, Policy, Real
from cloudchamber.placement.model import Instance, Placement
from cloudchamber.placement.policies.greedy_mixed import GreedyMixed


class Annealing(Policy):
    """Start from :class:`GreedyMixed`; try random moves and swaps, accepting worse ones ever more rarely; keep the best seen.

    The energy is the largest pressure; a change for the worse by a share x of it is accepted with probability exp(-x / temperature).

    Parameters
    ----------
    moves : int, default 20000
        Moves and swaps tried.
    hot : float, default 0.1
        First temperature; it falls geometrically.
    cold : float, default 0.001
        Last temperature.

    Examples
    --------
    >>> Annealing(moves=500)
    Annealing(moves=500)
    """

    _constraints = {"moves": Integer(0, 10**9), "hot": Real(0, 100, strict=True), "cold": Real(0, 100, strict=True)}

    def __init__(self, moves: int = 20_000, *, hot: float = 0.1, cold: float = 0.001) -> None:
        self.moves = moves
        self.hot = hot
        self.cold = cold

    def place(self, instance: Instance) -> Placement:
        """Return the best placement seen."""
        start = np.array(GreedyMixed().place(instance).gpu_of)
        demand = np.array([model.demand for model in instance.models])
        size_gb = np.array([model.size_gb for model in instance.models])
        found = annealed(
            start, demand, size_gb, instance.gpus, instance.gpu_memory_gb, self.rng_.random((self.moves, 4)), self.hot, self.cold
        )
        return Placement(tuple(found.tolist()))


@njit
def annealed(gpu_of, demand, size_gb, gpus, memory_gb, draws, hot, cold):  # type: ignore[no-untyped-def]
    """Return the best placement of the walk."""
    models = len(gpu_of)
    load, free_gb = np.zeros(gpus), np.full(gpus, memory_gb)
    for i in range(models):
        load[gpu_of[i]] += demand[i]
        free_gb[gpu_of[i]] -= size_gb[i]
    energy = (load / free_gb).max()
    best, least = gpu_of.copy(), energy
    for step in range(len(draws)):
        i = int(draws[step, 0] * models)
        here = gpu_of[i]
        j = int(draws[step, 1] * models) if draws[step, 2] < 0.5 else -1  # the other half are plain moves
        there = gpu_of[j] if j >= 0 else int(draws[step, 1] * gpus)
        if there == here:
            continue
        up = demand[i] - (demand[j] if j >= 0 else 0.0)
        gb = size_gb[i] - (size_gb[j] if j >= 0 else 0.0)
        if free_gb[here] + gb <= 0 or free_gb[there] - gb <= 0:
            continue
        load[here] -= up
        load[there] += up
        free_gb[here] += gb
        free_gb[there] -= gb
        now = (load / free_gb).max()
        temperature = hot * (cold / hot) ** (step / len(draws))
        if now <= energy or draws[step, 3] < np.exp((energy - now) / (energy * temperature)):
            energy = now
            gpu_of[i] = there
            if j >= 0:
                gpu_of[j] = here
            if energy < least * (1 - 1e-12):
                best, least = gpu_of.copy(), energy
        else:
            load[here] += up
            load[there] -= up
            free_gb[here] -= gb
            free_gb[there] += gb
    return best
