"""Radial Attention: how wide a band of each frame a query of a video reads, by the frames between them.

The problem
-----------
In video models attention decays with the distance in frames and in space. A static mask that follows the decay can be planned once for a
shape, and its cost grows as n log n. A :class:`BandWidth` says how wide the band is at each distance; one mask serves all heads.

>>> from cloudchamber import study
>>> results = study("attention.radial", policies=["RadialPaper", "SlidingTile"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["RadialPaper"] < rows["SlidingTile"]
True
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "fields": ("Field", "decay_field", "scene_cut_field"),
    "fitting": ("Decay", "fit_decay", "suggest"),
    "masks": ("RadialSelector", "block_mask", "token_mask"),
    "model": ("BandWidth", "RadialSpec", "band_pairs", "bands", "count"),
    "planar": ("Grid2DRadial", "allowed_share"),
    "policies.laws": ("Exponential", "Harmonic", "Linear", "PowerLaw", "SlidingTile", "SpatialOnly", "StridedLong", "TemporalOnly"),
    "policies.paper": ("RadialBlock", "RadialPaper"),
    "study": ("RadialStudy",),
    "workloads": ("RadialWorkload",),
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
