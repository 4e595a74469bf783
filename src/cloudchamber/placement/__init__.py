"""Which GPU holds which models, so that none is short of memory for its KV cache.

The problem
-----------
Models of different size and traffic share GPUs. What the weights leave free on a GPU holds the KV cache of its requests, so a
GPU is pressed by its demand (the sum of request rate / SLO) over its free memory. A :class:`PlacementPolicy` puts every model on one
GPU; the objective is the pressure of the worst GPU.

>>> from cloudchamber import study
>>> results = study("placement", policies=["PrismGreedy", "GreedyMixed", "ExactPacking"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["ExactPacking"] <= rows["GreedyMixed"] and rows["ExactPacking"] <= rows["PrismGreedy"]
True

Your own instances: :func:`cloudchamber.placement.data.read_instances` says in which format. Your own policy: a class with ``reset``
and ``place``; see :class:`PlacementPolicy`.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "model": ("Instance", "Model", "Placement", "PlacementPolicy", "PlacementSpec"),
    "simulator": ("Loads", "measured", "run"),
    "optimum": ("Optimum", "least_kvpr", "mediant"),
    "policies.annealing": ("Annealing",),
    "policies.exact_packing": ("ExactPacking",),
    "policies.floor": ("FirstFit", "RandomFit", "RoundRobinFit"),
    "policies.greedy_after": ("GreedyAfter",),
    "policies.greedy_mixed": ("GreedyMixed",),
    "policies.local_search": ("LocalSearch",),
    "policies.multifit": ("Multifit",),
    "policies.prism_greedy": ("PrismGreedy",),
    "data": ("read_instances",),
    "workloads": ("PlacementWorkload",),
    "study": ("PlacementStudy",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
