"""VSA: attention between means of tiles chooses the tiles that are read in full, stands for the rest, and is trained with the model.

The problem
-----------
A video is cut into tiles of tokens. Each query tile may read ``keep`` key tiles; which ones is decided by scores between the tiles'
means. A :class:`TileSelect` makes that choice; :func:`vsa` puts it into a module with the coarse branch, whose output teaches the router.

>>> from cloudchamber import study
>>> results = study("attention.vsa", policies=["CoarseTopK", "RandomTiles"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["CoarseTopK"] > rows["RandomTiles"]
True
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "coarse": ("CoarseBranch", "SparsityRamp", "TileSelector", "vsa"),
    "model": ("TileSelect", "TileSpec", "TileView", "Tiles"),
    "policies.coarse_top_k": ("CoarseTopK",),
    "policies.local_plus": ("LocalPlusTopK",),
    "policies.moba": ("MoBA",),
    "policies.oracle_tiles": ("OracleTiles",),
    "policies.random_tiles": ("RandomTiles",),
    "policies.sliding_tiles": ("SlidingTiles",),
    "policies.spatial_temporal": ("TileSpatialTemporal",),
    "study": ("VsaStudy",),
    "workloads": ("VsaWorkload",),
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
