"""Workloads of ``attention.vsa``: objects that a query looks for, in line with the tiles or not, near or far away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cloudchamber.attention.generators import GENERATORS, Tensors
from cloudchamber.attention.model import Blocks, Grid, block_mass, pooled, scale_of
from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .model import TileView

SOURCES = ("aligned", "misaligned", "cross-scene", *GENERATORS)


@dataclass(frozen=True, kw_only=True)
class VsaWorkload(Workload):
    """Heads over a video that is cut into tiles.

    Parameters
    ----------
    source : str
        "aligned": every query tile looks for the tokens of one tile, anywhere; "misaligned": for a cube of that size that straddles tiles;
        "cross-scene": the first frames look for the last ones and the other way round; or a generator of the module attention.
    frames, height, width, heads, head_dim : int
    tile : tuple of (int, int, int)
    sparsity : float
        Share of key tiles that a query tile does not read.
    """

    source: str = "aligned"
    frames: int = 8
    height: int = 16
    width: int = 16
    heads: int = 2
    head_dim: int = 64
    tile: tuple[int, int, int] = (4, 4, 4)
    sparsity: float = 0.875

    @property
    def summary(self) -> str:
        """Shape and budget."""
        t = " x ".join(map(str, self.tile))
        return (
            f"{self.source}: {self.heads} heads over {self.frames} x {self.height} x {self.width} tokens in tiles of {t}, "
            f"{self.keep} of {np.prod(self.tiles)} tiles are read."
        )

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Tiles along each axis."""
        return tuple(-(-size // step) for size, step in zip((self.frames, self.height, self.width), self.tile, strict=True))  # type: ignore[return-value]

    @property
    def keep(self) -> int:
        """Key tiles of a query tile: K = ceil((1 - sparsity) n), at least 1."""
        n = int(np.prod(self.tiles))
        return min(max(int(np.ceil(round((1 - self.sparsity) * n, 9))), 1), n)

    def instance(self, seed: int) -> Instance:
        """The seed's heads, tiled, with what is true of them."""
        return _instance(replace(self, seeds=12, is_optional=False), seed)


@dataclass(frozen=True, eq=False)
class Instance:
    """Tensors in the order of the tiles, what a policy is shown of each head, and the truth."""

    tensors: Tensors
    blocks: Blocks
    views: tuple[TileView, ...]
    mass: np.ndarray  # (heads, tiles, tiles)
    out: np.ndarray


@lru_cache(maxsize=24)
def _instance(workload: VsaWorkload, seed: int) -> Instance:
    from cloudchamber.attention.simulator import attended

    grid = Grid(workload.frames, workload.height, workload.width)
    rng = rng_of("attention.vsa.tensors", workload.name, seed)
    if workload.source in GENERATORS:
        made = GENERATORS[workload.source](grid, workload.heads, workload.head_dim, rng)
    else:
        made = _planted(workload, grid, rng)
    number = np.ravel_multi_index(tuple((grid.positions() // np.array(workload.tile)).T), workload.tiles)
    order = np.argsort(number, kind="stable").astype(np.int32)
    blocks = Blocks(np.bincount(number, minlength=int(np.prod(workload.tiles))).astype(np.int32)[None], order[None])
    q, k, v = (np.ascontiguousarray(each[:, order]) for each in (made.q, made.k, made.v))
    tensors = Tensors(q, k, v, grid)
    places = np.indices(workload.tiles).reshape(3, -1).T.astype(np.int64)
    scores = (pooled(q, blocks) * scale_of(workload.head_dim)) @ pooled(k, blocks).transpose(0, 2, 1)
    best = (pooled(q, blocks) * scale_of(workload.head_dim)) @ pooled(k, blocks, "max").transpose(0, 2, 1)
    views = tuple(TileView(scores[h], best[h], blocks.sizes[0].astype(np.int64), places) for h in range(workload.heads))
    return Instance(tensors, blocks, views, block_mass(q, k, blocks, blocks), attended(tensors, None))


def _planted(workload: VsaWorkload, grid: Grid, rng: np.random.Generator, logit: float = 7.0) -> Tensors:
    """Each query tile has a cube of keys that it prefers by a logit."""
    place = grid.positions()
    shape, tile = np.array((grid.frames, grid.height, grid.width)), np.array(workload.tile)
    owner = np.ravel_multi_index(tuple((place // tile).T), workload.tiles)
    q, k, v = (rng.standard_normal((workload.heads, grid.tokens, workload.head_dim)) for _ in range(3))
    cubes = np.indices(workload.tiles).reshape(3, -1).T * tile
    for h in range(workload.heads):
        for row in range(len(cubes)):
            corner = cubes[rng.integers(len(cubes))].copy()
            if workload.source == "misaligned":
                corner = (corner + rng.integers(0, tile)) % shape
            if workload.source == "cross-scene":  # what left in the first frames comes back in the last, and the other way round
                corner[0] = 0 if cubes[row][0] >= shape[0] / 2 else shape[0] - tile[0]
            inside = (((place - corner) % shape) < tile).all(axis=1)
            towards = rng.standard_normal(workload.head_dim)
            towards *= np.sqrt(logit / scale_of(workload.head_dim)) / np.linalg.norm(towards)
            q[h, owner == row] += towards
            k[h, inside] += towards
    return Tensors(q.astype(np.float32), k.astype(np.float32), v.astype(np.float32), grid)


def named_workloads() -> Mapping[str, VsaWorkload]:
    """The named workloads."""
    every = (
        VsaWorkload(name="aligned", is_generated=True, seeds=6),
        VsaWorkload(name="misaligned", source="misaligned", is_generated=True, seeds=6),
        VsaWorkload(name="cross-scene", source="cross-scene", is_generated=True, seeds=6),
        VsaWorkload(name="decay", source="decay", is_generated=True, seeds=6),
        VsaWorkload(name="clustered", source="clustered", is_generated=True, seeds=6),
        VsaWorkload(name="ragged", frames=5, height=9, width=13, is_generated=True, seeds=6, is_optional=True),
        VsaWorkload(
            name="smoke",
            frames=4,
            height=4,
            width=5,
            head_dim=16,
            tile=(2, 2, 2),
            sparsity=0.75,
            is_generated=True,
            is_optional=True,
            seeds=2,
        ),
    )
    return {each.name: each for each in every}


def adjusted(workload: VsaWorkload, params: Mapping[str, Any]) -> VsaWorkload:
    """The workload with parameters changed.

    Raises
    ------
    InputError
        If there is no such parameter, or its value is none.
    """
    made: dict[str, Any] = {}
    for name, text in params.items():
        if name not in ("source", "frames", "height", "width", "heads", "head_dim", "sparsity"):
            raise InputError(
                f"workloads of attention.vsa have no parameter {name!r}; allowed: source, frames, height, width, heads, head_dim, sparsity."
            )
        try:
            made[name] = text if name == "source" else float(text) if name == "sparsity" else int(text)
        except ValueError:
            raise InputError(f"{name} must be a number, got {text!r}.") from None
        if name == "source" and text not in SOURCES:
            raise InputError(f"source must be one of {', '.join(SOURCES)}, got {text!r}.")
        if name == "sparsity" and not 0 <= made[name] < 1:
            raise InputError(f"sparsity must be at least 0 and below 1, got {text}.")
        if name not in ("source", "sparsity") and made[name] < 1:
            raise InputError(f"{name} must be at least 1, got {text}.")
    changed = replace(workload, **made)
    return replace(changed, name=f"{workload.name}({','.join(f'{k}={v}' for k, v in made.items())})") if made else workload
