"""Over which links a data set is copied from one region to several, across clouds.

The problem
-----------
A model or data set lies in one region and is needed in several, of several clouds. Egress between two regions has a price per gigabyte, and
a speed. A region that has the data can pass it on, and so can one that does not need it. A :class:`BroadcastPolicy` plans the trees;
the bill is egress plus the VMs that move the data.

>>> from cloudchamber import study
>>> results = study("broadcast", policies=["DreyfusWagner", "DijkstraPaths", "DirectStar"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["DreyfusWagner"] <= rows["DijkstraPaths"] <= rows["DirectStar"]
True

Your own prices, speeds and jobs: a folder as :func:`cloudchamber.broadcast.data.read_grids` and
:func:`cloudchamber.broadcast.data.read_job` read it. Your own policy: a class with ``reset`` and ``plan``; see :class:`BroadcastPolicy`.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "model": ("Broadcast", "BroadcastPolicy", "BroadcastSpec", "Edge", "Job"),
    "simulator": ("Transfer", "measured", "run"),
    "optimum": ("Least", "least_cost"),
    "policies.dijkstra": ("DijkstraPaths",),
    "policies.dreyfus_wagner": ("DreyfusWagner", "steiner_tree"),
    "policies.nearest": ("NearestDestination",),
    "policies.star": ("DirectStar", "RandomTree"),
    "policies.striped_trees": ("StripedTrees",),
    "policies.takahashi_matsuyama": ("TakahashiMatsuyama",),
    "policies.tree_search": ("TreeSearch",),
    "data": ("read_grids", "read_job"),
    "twin": ("generate",),
    "workloads": ("BroadcastWorkload",),
    "study": ("BroadcastStudy",),
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
