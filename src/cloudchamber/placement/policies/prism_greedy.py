"""Prism's greedy: the most demanding model first, to the GPU under the least pressure."""

from __future__ import annotations

import math

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Policy
from cloudchamber.placement.model import Instance, Placement


class PrismGreedy(Policy):
    """Take models by falling rate / slo; put each where the pressure before it comes is least, if it fits.

    The published baseline. It looks at a GPU as it is, not as it will be, so a large model may land on an idle GPU that
    then has little memory left.

    Examples
    --------
    >>> from cloudchamber.placement.model import Model
    >>> instance = Instance(2, 80.0, (Model(20.0, 9.0, 6.0), Model(10.0, 6.0, 6.0), Model(10.0, 3.0, 6.0)))
    >>> PrismGreedy().place(instance)
    Placement(gpu_of=(0, 1, 1))

    References
    ----------
    Prism: Unleashing GPU Sharing for Cost-Efficient Multi-LLM Serving.
    """

    def place(self, instance: Instance) -> Placement:
        """Return the placement."""
        used_gb = [0.0] * instance.gpus
        load = [0.0] * instance.gpus  # demand placed so far
        gpu_of = [0] * len(instance.models)
        features = [(model.size_gb, model.request_rate, model.slo) for model in instance.models]
        for index in sorted(range(len(features)), key=lambda i: priority(*features[i]), reverse=True):
            size_gb, rate, slo = features[index]
            demand = rate / slo
            best, least = -1, math.inf
            for gpu in range(instance.gpus):
                free_gb = instance.gpu_memory_gb - used_gb[gpu]
                if size_gb < free_gb:
                    pressure = load[gpu] / free_gb
                    if pressure < least:
                        best, least = gpu, pressure
            if best < 0:
                raise InputError(f"model {index} ({size_gb:g} GB) fits on no GPU any more.")
            gpu_of[index] = best
            used_gb[best] += size_gb
            load[best] += demand
        return Placement(tuple(gpu_of))


def priority(size_gb: float, rate: float, slo: float) -> float:
    """Models with more of it are placed earlier; their size does not count."""
    return rate / slo
