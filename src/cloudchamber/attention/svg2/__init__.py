"""Sparse VideoGen2: cluster queries and keys by what they are, then keep the pairs of clusters that matter.

The problem
-----------
Blocks of neighbours mix unlike tokens, so that means misjudge them and half of what is computed is waste. Clusters hold tokens that are
alike. A :class:`ClusterKeep` sees an estimate of the attention between clusters and says which pairs are computed, to catch a share ``p``
of it. :func:`svg2` puts one into a module, with the centres carried from step to step.

>>> from cloudchamber import study
>>> results = study("attention.svg2", policies=["CalibratedTopP", "KeepAll"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["CalibratedTopP"] < rows["KeepAll"]
True
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "clustering": ("Clusters", "batch_kmeans"),
    "layout": ("Centroids", "KMeansLayout"),
    "model": ("ClusterKeep", "ClusterSpec", "ClusterView", "Kept", "top_p"),
    "policies.calibrated": ("CalibratedTopP",),
    "policies.fixed": ("KeepAll", "RandomClusters"),
    "policies.oracle_mass": ("OracleMass",),
    "policies.spatial_temporal": ("ClusterSpatialTemporal",),
    "policies.top_k": ("Threshold", "TopK"),
    "policies.top_p": ("CentroidTopP",),
    "policies.xattention_like": ("XAttentionLike",),
    "selector": ("ClusterSelector", "svg2"),
    "study": ("Svg2Study",),
    "workloads": ("Svg2Workload",),
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
