"""Workloads of ``attention.svg2``: attention between semantic groups, cut by k-means, by place, by tiles, or by lot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cloudchamber.attention.generators import Tensors, clustered, decay
from cloudchamber.attention.model import Blocks, Grid, block_mass
from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .clustering import batch_kmeans
from .estimates import view_of
from .model import ClusterView

CUTS = ("kmeans", "raster", "tiles", "shuffled")
SAMPLES = 32


@dataclass(frozen=True, kw_only=True)
class Svg2Workload(Workload):
    """Heads over a video whose tokens belong to groups.

    Parameters
    ----------
    cut : {"kmeans", "raster", "tiles", "shuffled"}
        How tokens are put into clusters: by k-means on queries and on keys, as runs of neighbours, as 4 x 4 x 4 tiles, or k-means clusters
        with their labels shuffled.
    source : {"clustered", "decay"}
    frames, height, width, heads, head_dim : int
    n_q, n_k : int
        Clusters of queries and of keys.
    scatter : float
        Share of tokens that lie apart from their group.
    p : float
        Share of the attention to be caught.
    """

    cut: str = "kmeans"
    source: str = "clustered"
    frames: int = 8
    height: int = 16
    width: int = 16
    heads: int = 2
    head_dim: int = 64
    n_q: int = 32
    n_k: int = 32
    scatter: float = 0.25
    p: float = 0.9

    @property
    def summary(self) -> str:
        """Shape, clusters and aim."""
        return (
            f"{self.source}, cut by {self.cut}: {self.heads} heads over {self.frames} x {self.height} x {self.width} tokens, "
            f"{self.n_q} x {self.n_k} clusters, {self.p:.0%} of the attention."
        )

    def instance(self, seed: int) -> Instance:
        """The seed's heads, cut, with what is true of them."""
        return _instance(replace(self, seeds=12, is_optional=False, p=0.0), seed)


@dataclass(frozen=True, eq=False)
class Instance:
    """Tensors after the permutation of each head, their clusters, what a policy is shown of each head, and the truth."""

    tensors: Tensors
    q_blocks: Blocks
    k_blocks: Blocks
    views: tuple[ClusterView, ...]
    mass: np.ndarray  # (heads, query clusters, key clusters)
    out: np.ndarray  # dense attention's output


@lru_cache(maxsize=24)
def _instance(workload: Svg2Workload, seed: int) -> Instance:
    from cloudchamber.attention.simulator import attended

    rng = rng_of("attention.svg2.tensors", f"{workload.source}-{workload.scatter}", seed)  # the same for every cut
    grid = Grid(workload.frames, workload.height, workload.width)
    if workload.source == "clustered":
        made = clustered(grid, workload.heads, workload.head_dim, rng, scatter=workload.scatter)
    else:
        made = decay(grid, workload.heads, workload.head_dim, rng)
    q_blocks, k_blocks = cut(made, workload, rng_of("attention.svg2.cut", workload.name, seed))
    q = np.stack([x[order] for x, order in zip(made.q, _orders(q_blocks, workload.heads), strict=True)])
    k, v = (np.stack([x[order] for x, order in zip(each, _orders(k_blocks, workload.heads), strict=True)]) for each in (made.k, made.v))
    tensors = Tensors(q, k, v, grid)
    mass = block_mass(q, k, q_blocks, k_blocks)
    views = tuple(_view(h, tensors, q_blocks, k_blocks, rng_of("attention.svg2.sample", workload.name, seed)) for h in range(len(q)))
    return Instance(tensors, q_blocks, k_blocks, views, mass, attended(tensors, None))


def _orders(blocks: Blocks, heads: int) -> np.ndarray:
    assert blocks.order is not None
    return np.broadcast_to(blocks.order, (heads, blocks.order.shape[1]))


def cut(made: Tensors, workload: Svg2Workload, rng: np.random.Generator) -> tuple[Blocks, Blocks]:
    """Put queries and keys into clusters.

    Raises
    ------
    InputError
        If there is no such way.
    """
    n = made.grid.tokens
    if workload.cut not in CUTS:
        raise InputError(f"cut must be one of {', '.join(CUTS)}, got {workload.cut!r}.")
    if workload.cut in ("raster", "tiles"):
        place = made.grid.positions()
        if workload.cut == "tiles":
            label = np.ravel_multi_index(tuple((place // 4).T), tuple(-(-size // 4) for size in (place.max(axis=0) + 1)))
        else:
            label = np.arange(n) * workload.n_k // n
        sizes = np.bincount(label).astype(np.int32)
        blocks = Blocks(sizes[None], np.argsort(label, kind="stable").astype(np.int32)[None])
        return blocks, blocks
    found = [batch_kmeans(x, size, rng=rng) for x, size in ((made.q, workload.n_q), (made.k, workload.n_k))]
    if workload.cut == "shuffled":
        found = [replace(each, labels=rng.permuted(each.labels, axis=1)) for each in found]
    return found[0].blocks(), found[1].blocks()


def _view(head: int, tensors: Tensors, q_blocks: Blocks, k_blocks: Blocks, rng: np.random.Generator) -> ClusterView:
    own_q, own_k = q_blocks.of_head(head), k_blocks.of_head(head)
    places = tensors.grid.positions().astype(np.float64)
    assert own_q.order is not None and own_k.order is not None
    drawn = np.sort(rng.choice(tensors.q.shape[1], min(SAMPLES, tensors.q.shape[1]), replace=False))
    q, k = tensors.q[head].astype(np.float64), tensors.k[head].astype(np.float64)
    return view_of(q, k, own_q, own_k, (places[own_q.order[0]], places[own_k.order[0]]), drawn)


def named_workloads() -> Mapping[str, Svg2Workload]:
    """The named workloads."""
    every = (
        Svg2Workload(name="kmeans", is_generated=True, seeds=6),
        Svg2Workload(name="tiles", cut="tiles", is_generated=True, seeds=6),
        Svg2Workload(name="raster", cut="raster", is_generated=True, seeds=6),
        Svg2Workload(name="kmeans-compact", scatter=0.0, is_generated=True, seeds=6, is_optional=True),
        Svg2Workload(name="tiles-compact", cut="tiles", scatter=0.0, is_generated=True, seeds=6, is_optional=True),
        Svg2Workload(name="kmeans-decay", source="decay", is_generated=True, seeds=6, is_optional=True),
        Svg2Workload(name="shuffled", cut="shuffled", is_generated=True, seeds=6, is_optional=True),
        Svg2Workload(
            name="smoke", frames=4, height=4, width=8, head_dim=16, n_q=8, n_k=12, is_generated=True, is_optional=True, seeds=2
        ),
    )  # fmt: skip
    return {each.name: each for each in every}


def adjusted(workload: Svg2Workload, params: Mapping[str, Any]) -> Svg2Workload:
    """The workload with parameters changed.

    Raises
    ------
    InputError
        If there is no such parameter, or its value is none.
    """
    kinds = {"cut": str, "source": str, "scatter": float, "p": float} | dict.fromkeys(
        ("frames", "height", "width", "heads", "head_dim", "n_q", "n_k"), int
    )
    made: dict[str, Any] = {}
    for name, text in params.items():
        if name not in kinds:
            raise InputError(f"workloads of attention.svg2 have no parameter {name!r}; allowed: {', '.join(kinds)}.")
        try:
            made[name] = kinds[name](text)
        except ValueError:
            raise InputError(f"{name} must be a number, got {text!r}.") from None
        if kinds[name] is int and made[name] < 1:
            raise InputError(f"{name} must be at least 1, got {text}.")
        if kinds[name] is float and not 0 <= made[name] <= 1:
            raise InputError(f"{name} must be between 0 and 1, got {text}.")
    if made.get("cut", "kmeans") not in CUTS or made.get("source", "decay") not in ("clustered", "decay"):
        raise InputError(f"cut must be one of {', '.join(CUTS)}, and source clustered or decay.")
    changed = replace(workload, **made)
    return replace(changed, name=f"{workload.name}({','.join(f'{k}={v}' for k, v in made.items())})") if made else workload
