"""The nouns of model placement: models, the GPUs they share, and where each one goes."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message


class Model(Message, frozen=True):
    """A model to be served, known by its place in the instance's list.

    Parameters
    ----------
    size_gb : float
        Memory its weights take.
    request_rate : float
        Requests per second.
    slo : float
        Seconds a request may take.

    Raises
    ------
    InputError
        If a number is not finite, or a size or objective is not above 0.
    """

    size_gb: float
    request_rate: float
    slo: float

    def __post_init__(self) -> None:
        for name in ("size_gb", "request_rate", "slo"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "request_rate"):
                raise InputError(
                    f"{name} of a model must be a finite number {'of at least' if name == 'request_rate' else 'above'} 0, got {value!r}."
                )

    @property
    def demand(self) -> float:
        """Request rate over the time a request may take."""
        return self.request_rate / self.slo


class Instance(Message, frozen=True):
    """One placement problem: equal GPUs, and models that must each go on one of them.

    Parameters
    ----------
    gpus : int
    gpu_memory_gb : float
        Memory of each; what the weights leave free holds the KV cache.
    models : tuple of Model

    Raises
    ------
    InputError
        If there is no GPU, no memory or no model, or a model is larger than a GPU.
    """

    gpus: int
    gpu_memory_gb: float
    models: tuple[Model, ...]

    def __post_init__(self) -> None:
        if self.gpus < 1 or not self.models:
            raise InputError(f"an instance needs at least one GPU and one model, got {self.gpus} and {len(self.models)}.")
        if not math.isfinite(self.gpu_memory_gb) or self.gpu_memory_gb <= 0:
            raise InputError(f"gpu_memory_gb must be a finite number above 0, got {self.gpu_memory_gb!r}.")
        largest = max(model.size_gb for model in self.models)
        if largest >= self.gpu_memory_gb:
            raise InputError(
                f"a model of {largest:g} GB leaves a GPU of {self.gpu_memory_gb:g} GB no memory for its KV cache; "
                "give larger GPUs, or split the model first."
            )


class PlacementSpec(Message, frozen=True):
    """What a policy knows before the models: how many GPUs there are, and the memory of each in GB."""

    gpus: int
    gpu_memory_gb: float


class Placement(Message, frozen=True):
    """The answer: for each model, in the instance's order, the index of its GPU."""

    gpu_of: tuple[int, ...]


class PlacementPolicy(Protocol):
    """Decides which GPU holds which models. See :class:`cloudchamber.core.policy.Policy` for a base class.

    The pressure of a GPU is the demand of its models (the sum of rate / slo) over the GB that their weights leave free for the
    KV cache; the objective is the largest pressure of all GPUs.
    """

    def reset(self, spec: PlacementSpec, rng: np.random.Generator) -> None:
        """Forget everything; called once before each trial."""
        ...

    def place(self, instance: Instance) -> Placement:
        """Return a GPU for every model."""
        ...
