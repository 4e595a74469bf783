"""Which keys a query reads when it may read only some.

The problem
-----------
Attention costs the product of queries and keys, and most of its weight lies on few keys. A :class:`Selector` sees blocks of queries and
keys and says which pairs are computed; a kernel computes them exactly, and nothing else.

>>> from cloudchamber import study
>>> results = study("attention", policies=["PooledTopK", "RandomBlocks"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["PooledTopK"] > rows["RandomBlocks"]
True

Your own selector: a class with ``reset`` and ``select``; see :class:`Selector`.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "generators": ("GENERATORS", "Tensors"),
    "model": (
        "AttentionSpec", "BlockIndex", "Blocks", "Grid", "Rows", "Scene", "Selection", "Selector", "block_mass", "kept", "pooled",
    ),
    "optimum": ("best_mask",),
    "policies.oracle": ("OracleTopK", "OracleTopP"),
    "policies.pooled_top_k": ("PooledTopK", "pooled_scores"),
    "policies.pooled_top_p": ("PooledTopP",),
    "policies.random_blocks": ("RandomBlocks",),
    "policies.sliding_window": ("SinkWindow", "SlidingWindow"),
    "policies.spatial_temporal": ("SpatialTemporal",),
    "study": ("AttentionStudy",),
    "workloads": ("AttentionWorkload",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
