"""Requests for a single token: in which order they run, and how much of their KV stays.

Recommendation, credit checks, labelling, reranking and judging ask a model one question about a long text and read one token. How
long such a request takes is known beforehand, but for one thing: how much of its prompt is in the cache when its turn comes.
:class:`CalibratedSJF` looks again before every dispatch.

>>> from cloudchamber import study
>>> results = study("engine.prefillonly", policies=["CalibratedSJF", "FCFS", "OracleMeanOrder"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["OracleMeanOrder"] <= rows["CalibratedSJF"]
True
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "memory": ("SHAPES", "Shape"),
    "model": ("JCT", "PrefixKeep"),
    "policies.calibrated_sjf": ("CalibratedSJF",),
    "policies.frozen_sjf": ("FrozenSJF",),
    "policies.jct": ("LinearJCT", "MissTokens"),
    "policies.keeping": ("KeepAll", "KeepNone", "SuffixDiscard"),
    "policies.oracle_mean_order": ("OracleMeanOrder",),
    "simulator": ("route", "serve"),
    "study": ("PrefillStudy",),
    "workloads": ("PrefillWorkload",),
}
_ENGINE = {
    "policies.fcfs": ("FCFS",),
    "policies.longest_prefix_match": ("LongestPrefixMatch",),
    "policies.random_order": ("RandomOrder",),
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names} | {
    name: f"cloudchamber.engine.{home}" for home, names in _ENGINE.items() for name in names
}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
