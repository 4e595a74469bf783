"""Workloads of ``attention.sla``: a generator, blocks by runs or by tiles, and the shares that may be critical and are negligible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cloudchamber.attention.generators import GENERATORS, Tensors
from cloudchamber.attention.model import Blocks, Grid, block_mass
from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .model import RouteView, counts
from .pooling import views

CUTS, REGIONS = ("raster", "tiles"), ("marginal", "complement", "all")


@dataclass(frozen=True, kw_only=True)
class SlaWorkload(Workload):
    """Heads over a video, cut into blocks.

    Parameters
    ----------
    source : str
        Name of a generator of the module attention.
    cut : {"raster", "tiles"}
        Blocks are runs of neighbours, or tiles of 4 x 4 x 4 tokens.
    frames, height, width, heads, head_dim, block : int
        ``block``: tokens of a run.
    k_h, k_l : float
        Shares of the key blocks that may be critical and that the paper's rule takes for negligible.
    region : {"marginal", "complement", "all"}
        Keys that the linear branch sees.
    """

    source: str = "decay"
    cut: str = "raster"
    frames: int = 8
    height: int = 8
    width: int = 16
    heads: int = 4
    head_dim: int = 64
    block: int = 16
    k_h: float = 0.05
    k_l: float = 0.1
    region: str = "marginal"

    @property
    def summary(self) -> str:
        """Shape, blocks and shares."""
        cut = f"runs of {self.block}" if self.cut == "raster" else "tiles of 4 x 4 x 4"
        return (
            f"{self.source}: {self.heads} heads over {self.frames} x {self.height} x {self.width} tokens in {cut}; {self.k_h:.0%} of the "
            f"key blocks critical, {self.k_l:.0%} negligible; the linear branch sees: {self.region}."
        )

    def counts(self, blocks: int) -> tuple[int, int]:
        """Critical and negligible blocks of a row."""
        return counts(self.k_h, self.k_l, blocks)

    def instance(self, seed: int) -> Instance:
        """The seed's heads, cut, with what is true of them."""
        return _instance(replace(self, seeds=12, is_optional=False, k_h=1.0, k_l=0.0, region="all"), seed)


@dataclass(frozen=True, eq=False)
class Instance:
    """Tensors in the order of the blocks, what a policy is shown of each head, and the truth."""

    tensors: Tensors
    blocks: Blocks
    views: tuple[RouteView, ...]
    mass: np.ndarray  # (heads, query blocks, key blocks)
    out: np.ndarray  # dense attention's output, (heads, tokens, head dimension)


@lru_cache(maxsize=24)
def _instance(workload: SlaWorkload, seed: int) -> Instance:
    from cloudchamber.attention.simulator import attended

    grid = Grid(workload.frames, workload.height, workload.width)
    made = GENERATORS[workload.source](grid, workload.heads, workload.head_dim, rng_of("attention.sla.tensors", workload.name, seed))
    blocks = Blocks.uniform(grid.tokens, workload.block)
    if workload.cut == "tiles":
        tiles = tuple(-(-side // 4) for side in (grid.frames, grid.height, grid.width))
        number = np.ravel_multi_index(tuple((grid.positions() // 4).T), tiles)
        order = np.argsort(number, kind="stable").astype(np.int32)
        blocks = Blocks(np.bincount(number, minlength=int(np.prod(tiles))).astype(np.int32)[None], order[None])
        q, k, v = (np.ascontiguousarray(each[:, order]) for each in (made.q, made.k, made.v))
        made = Tensors(q, k, v, grid)
    seen = views(made.q, made.k, blocks, blocks)
    return Instance(made, blocks, seen, block_mass(made.q, made.k, blocks, blocks), attended(made, None))


def named_workloads() -> Mapping[str, SlaWorkload]:
    """The named workloads."""
    every = (
        SlaWorkload(name="decay", is_generated=True, seeds=6),
        SlaWorkload(name="clustered", source="clustered", is_generated=True, seeds=6),
        SlaWorkload(name="flat", source="flat", is_generated=True, seeds=6),
        SlaWorkload(name="iid", source="iid", is_generated=True, seeds=6),
        SlaWorkload(name="decay-tiles", cut="tiles", frames=16, is_generated=True, seeds=6, is_optional=True),
        SlaWorkload(name="clustered-all", source="clustered", region="all", is_generated=True, seeds=6, is_optional=True),
        SlaWorkload(name="ragged", frames=5, height=9, width=13, is_generated=True, seeds=6, is_optional=True),
        SlaWorkload(
            name="smoke", frames=4, height=4, width=4, heads=2, head_dim=16, block=4, k_h=0.2, is_generated=True, is_optional=True, seeds=2
        ),
    )
    return {each.name: each for each in every}


def adjusted(workload: SlaWorkload, params: Mapping[str, Any]) -> SlaWorkload:
    """The workload with parameters changed.

    Raises
    ------
    InputError
        If there is no such parameter, or its value is none.
    """
    choices = {"source": tuple(GENERATORS), "cut": CUTS, "region": REGIONS}
    sizes = ("frames", "height", "width", "heads", "head_dim", "block")
    kinds: dict[str, type] = {**dict.fromkeys(choices, str), "k_h": float, "k_l": float, **dict.fromkeys(sizes, int)}
    made: dict[str, Any] = {}
    for name, text in params.items():
        if name not in kinds:
            raise InputError(f"workloads of attention.sla have no parameter {name!r}; allowed: {', '.join(kinds)}.")
        try:
            made[name] = kinds[name](text)
        except ValueError:
            raise InputError(f"{name} must be a number, got {text!r}.") from None
        if name in choices and made[name] not in choices[name]:
            raise InputError(f"{name} must be one of {', '.join(choices[name])}, got {text!r}.")
        if kinds[name] is int and made[name] < 1:
            raise InputError(f"{name} must be at least 1, got {text}.")
        if kinds[name] is float and not 0 <= made[name] <= 1:
            raise InputError(f"{name} must be between 0 and 1, got {text}.")
    changed = replace(workload, **made)
    if changed.k_h + changed.k_l > 1 + 1e-9:
        raise InputError(f"k_h and k_l must be at most 1 together, got {changed.k_h:g} and {changed.k_l:g}.")
    return replace(changed, name=f"{workload.name}({','.join(f'{k}={v}' for k, v in made.items())})") if made else workload
