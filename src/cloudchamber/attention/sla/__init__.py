"""SLA: the few large attention weights are computed exactly, the many small ones by linear attention, and the smallest not at all.

The problem
-----------
The large weights of attention are of high rank, the small ones of a low one. So blocks of keys are told apart for each block of queries:
*critical* ones are read in full, *marginal* ones are left to a linear branch that costs next to nothing, *negligible* ones are
skipped. A :class:`BlockRoute` decides which is which; :func:`sla` puts it into a module with the linear branch, which must be trained:
before that its projection is zero, and the output is that of sparse attention alone.

>>> from cloudchamber import study
>>> results = study("attention.sla", policies=["TopShare", "RandomRoute"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["TopShare"] < rows["RandomRoute"]
True
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "branch": ("LinearBranch",),
    "checkpoints": ("load", "merge_delta", "warn_if_untrained"),
    "features": ("Hedgehog",),
    "linear": ("NotFinite",),
    "model": ("BlockRoute", "RouteSpec", "RouteView", "Routes"),
    "module": ("SLASelector", "ShareRamp", "sla"),
    "policies.hybrid": ("HybridTopKTopP",),
    "policies.oracle_route": ("OracleRoute",),
    "policies.random_route": ("RandomRoute",),
    "policies.sparge_like": ("SpargeLike",),
    "policies.top_p": ("TopP",),
    "policies.top_share": ("TopShare",),
    "ranks": ("stable_rank",),
    "study": ("SlaStudy",),
    "workloads": ("SlaWorkload",),
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
