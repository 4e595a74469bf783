"""Verified sparse attention: how many keys a decode step must read, so that its error is bounded with known probability.

The problem
-----------
The most important keys are found approximately, and what the rest contributes is estimated from a sample. A :class:`Budget` sees a pilot
sample's numbers and says how large the sample must be: relative error of a head's output at most epsilon with probability 1 - delta.

>>> from cloudchamber import study
>>> results = study("attention.verified", policies=["RatioBudget", "PaperBudget"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["RatioBudget"] < rows["PaperBudget"]
True

:class:`VAttention` decodes with any such budget and returns a :class:`Certificate` for every head. Nothing here is Microsoft's vAttention,
which manages the memory of KV caches.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "coverage": ("Coverage", "clopper_pearson"),
    "decode": ("Certificate", "Decoded", "VAttention", "dense"),
    "methods": ("METHODS",),
    "model": ("Budget", "BudgetDecision", "BudgetSpec", "PilotStats"),
    "pilot": ("pilot_stats",),
    "policies.adaptive_denominator": ("AdaptiveDenominator",),
    "policies.fixed": ("FixedBudget",),
    "policies.hoeffding": ("HoeffdingBudget",),
    "policies.importance": ("ImportanceBudget",),
    "policies.paper": ("PaperBudget",),
    "policies.ratio": ("RatioBudget",),
    "populations": ("POPULATIONS", "Population"),
    "runtime": ("VAttentionDecode",),
    "scorers": ("PQ", "DoubleSparsity", "ExactScores", "QuestPages", "RandomProjection"),
    "store": ("KVFile",),
    "study": ("VerifiedStudy",),
    "workloads": ("VerifiedWorkload",),
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
