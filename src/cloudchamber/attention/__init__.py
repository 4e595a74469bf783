"""Which keys a query reads when it may read only some: sparse attention, taken apart into five choices.

The problem
-----------
Attention over a long context reads every key for every query, though a few keys hold nearly all the weight. Systems that read less
differ in five places only: a *layout* permutes tokens into blocks, a *selector* names key blocks for each query block, a *kernel*
computes exact softmax attention over those, a *correction* stands for the rest, and a *carry* passes state to the next call. Each is an
object of its own, so that any two systems can be compared on the same tensors, on any machine, and trained.

A selector is a policy; the study ``attention`` holds all of them against each other and the best there could be:

>>> from cloudchamber import study
>>> results = study("attention", policies=["PooledTopK", "RandomBlocks"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["PooledTopK"] > rows["RandomBlocks"]
True

:func:`sparse_attention` is the kernel, on whichever backend is fastest here; :class:`SparseAttention` is a module of all five.

>>> import numpy as np, torch
>>> from cloudchamber.attention import BlockIndex, Blocks, sparse_attention
>>> q = k = v = torch.ones(1, 2, 128, 16)
>>> diagonal = BlockIndex.of(np.eye(2, dtype=bool)[None], Blocks.uniform(128, 64), Blocks.uniform(128, 64))
>>> out, lse = sparse_attention(q, k, v, diagonal)
>>> diagonal.density(), tuple(out.shape)
(0.5, (1, 2, 128, 16))

Your own selector: a class with ``reset`` and ``select``; see :class:`Selector`.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "converting": ("Converted", "convert", "revert"),
    "generators": ("GENERATORS", "Tensors"),
    "kernel": ("merge", "sparse_attention"),
    "layouts": ("Carry", "Layout", "Raster", "TileLayout"),
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
    "recipes": ("layer_loss", "parameter_groups", "white_box_loss"),
    "sparse": ("AttentionResult", "Correction", "Schedule", "SparseAttention"),
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
