"""Where and when to run a deadline job on spot instances of several zones and regions.

The problem
-----------
A checkpointing job needs P hours of compute before a deadline T. Spot capacity has a fraction of the on-demand price, but comes
and goes, differently in every zone; every launch pays a cold start, every move between regions pays egress. A
:class:`SpotPolicy` decides where to run; the deadline guard, part of the world and not of the policy, sees to it that
the job is never late.

>>> from cloudchamber import study
>>> results = study("spot", policies=["SkyNomad", "UniformProgressSwitch", "OnDemandOnly"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["SkyNomad"] < rows["OnDemandOnly"]
True

Your own trace: :func:`cloudchamber.spot.traces.read_user_trace` says in which format. Your own policy: a class with ``reset`` and
``decide``; see :class:`SpotPolicy`. The real thing: ``chamber run spot``.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "model": ("Decision", "Idle", "Job", "Keep", "Launch", "Probe", "SpotObs", "SpotPolicy", "SpotSpec", "Try", "Zone"),
    "guard": ("DeadlineGuard",),
    "market": ("Market", "Ticks"),
    "simulator": ("Run", "Simulator"),
    "optimum": ("Optimum", "offline_optimum"),
    "policies.lifetime": ("Lifetime", "NelsonAalen", "Oracle"),
    "policies.greedy": ("GreedyMulti", "GreedySpot"),
    "policies.on_demand_only": ("OnDemandOnly",),
    "policies.skynomad": ("SkyNomad",),
    "policies.uniform_progress": (
        "UniformProgress",
        "UniformProgressAvailability",
        "UniformProgressAvailabilityPerPrice",
        "UniformProgressSwitch",
    ),
    "workloads": ("SpotWorkload",),
    "study": ("SpotStudy",),
    "traces": ("read_user_trace",),
    "twin": ("ZoneStatistics", "generate"),
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
