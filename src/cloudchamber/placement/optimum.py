"""The best any placement could have done: exact for up to 18 models, else a proven bound.

The pressure of the worst GPU is at least total demand / total free memory (the mediant: a ratio of sums lies between the
ratios), and at least what any model causes on a GPU of its own. The exact optimum is found by bin packing over subsets of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .model import Instance, Placement
from .policies.exact_packing import least_pressure
from .simulator import Loads, measured

MODELS = 18  # the table over their subsets takes a few milliseconds a question


@dataclass(frozen=True, eq=False)
class Optimum:
    """The least pressure (1/GB), whether it is attained, and by which loads."""

    kvpr: float
    is_exact: bool
    loads: Loads | None


def mediant(instance: Instance) -> float:
    """Return total demand / total free memory, which no placement can beat."""
    spare_gb = instance.gpus * instance.gpu_memory_gb - sum(model.size_gb for model in instance.models)
    return sum(model.demand for model in instance.models) / spare_gb if spare_gb > 0 else np.inf


def alone(instance: Instance) -> float:
    """Return the pressure of the worst model on a GPU of its own, which no placement can beat either."""
    return max(model.demand / (instance.gpu_memory_gb - model.size_gb) for model in instance.models)


@lru_cache(maxsize=256)
def least_kvpr(instance: Instance) -> Optimum:
    """Return the least pressure of an instance, or a bound on it."""
    if len(instance.models) > MODELS:
        return Optimum(max(mediant(instance), alone(instance)), False, None)
    loads = measured_best(instance)
    return Optimum(float(loads.kvpr.max()), True, loads)


def measured_best(instance: Instance) -> Loads:
    """Return the loads of an optimal placement."""
    best = least_pressure(instance)
    loads = measured(Placement(tuple(best.tolist())), instance)
    assert isinstance(loads, Loads), loads
    return loads
