"""The verified world: it takes the placement as names only and computes every pressure itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudchamber.core.candidate import Candidate
from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import decode, encode

from .model import Instance, Placement, PlacementSpec


@dataclass(frozen=True, eq=False)
class Loads:
    """What a valid placement does to every GPU.

    Parameters
    ----------
    gpu_of : ndarray of shape (models,)
    demand, used_gb, kvpr : ndarray of shape (gpus,)
        Sum of rate / slo; memory of the weights; demand over free memory, 0 without a model.
    """

    gpu_of: np.ndarray
    demand: np.ndarray
    used_gb: np.ndarray
    kvpr: np.ndarray


def run(policy: Any, instance: Instance, rng: np.random.Generator) -> Loads | tuple[str, ...]:
    """Ask the policy for a placement of copies of the models; return what it does, or its violations.

    Raises
    ------
    CandidateError
        For anything the policy raises.
    """
    asked = policy if isinstance(policy, Candidate) else Candidate(policy)
    asked.reset(PlacementSpec(instance.gpus, instance.gpu_memory_gb), rng)
    return measured(asked.place(decode(encode(instance), Instance)), instance)


def measured(answer: Any, instance: Instance) -> Loads | tuple[str, ...]:
    """Return the loads of an answer, or all that is wrong with it."""
    try:
        placement = decode(encode(answer), Placement)  # a copy of plain whole numbers, whatever the policy made its own of
    except (InputError, TypeError, ValueError, NotImplementedError, OverflowError, RecursionError) as error:
        return (f"the answer is no Placement: {error}",)
    wrong = _violations(placement, instance)
    if wrong:
        return wrong
    gpu_of = np.array(placement.gpu_of)
    used_gb = _summed(gpu_of, [model.size_gb for model in instance.models], instance.gpus)
    over = [
        f"GPU {gpu} holds {used_gb[gpu]:g} of {instance.gpu_memory_gb:g} GB in weights, which leaves none for the KV cache"
        for gpu in range(instance.gpus)
        if used_gb[gpu] >= instance.gpu_memory_gb
    ]
    if over:
        return tuple(over)
    demand = _summed(gpu_of, [model.demand for model in instance.models], instance.gpus)
    return Loads(gpu_of, demand, used_gb, demand / (instance.gpu_memory_gb - used_gb))


def _violations(placement: Placement, instance: Instance) -> tuple[str, ...]:
    wrong = []
    if len(placement.gpu_of) != len(instance.models):
        wrong.append(f"{len(placement.gpu_of)} GPUs named for {len(instance.models)} models; name one for each, in order")
    unknown = sorted({gpu for gpu in placement.gpu_of if not 0 <= gpu < instance.gpus})
    if unknown:
        wrong.append(f"no GPU {unknown[0]}; they are 0 to {instance.gpus - 1}")
    return tuple(wrong)


def _summed(gpu_of: np.ndarray, values: list[float], gpus: int) -> np.ndarray:
    """Return the sum of values by GPU, added from small to large so that the order of models does not show."""
    order = np.argsort(values, kind="stable")
    return np.bincount(gpu_of[order], np.array(values)[order], gpus)
