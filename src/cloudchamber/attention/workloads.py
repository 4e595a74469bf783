"""Workloads of the study ``attention``: a generator, its shape, and the density that may be spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .generators import GENERATORS, Tensors
from .minilm import DIM, HEADS, LAYERS, TOKENS, minilm, stand_in
from .model import AttentionSpec, Blocks, Grid, Scene, block_mass

MINILM = "minilm"


@dataclass(frozen=True, kw_only=True)
class AttentionWorkload(Workload):
    """Attention of some heads over one grid of tokens.

    Parameters
    ----------
    source : str
        Name of a generator, or ``minilm``: the heads of a real model on real text, which have their own shape.
    frames, height, width : int
        The grid.
    heads, head_dim, block : int
    density : float
        Share of the key blocks that a query block may read on average.
    """

    source: str
    frames: int = 8
    height: int = 8
    width: int = 16
    heads: int = 4
    head_dim: int = 64
    block: int = 32
    density: float = 0.125

    @property
    def summary(self) -> str:
        """Shape and budget."""
        return (
            f"{self.source}: {self.heads} heads over {self.frames} x {self.height} x {self.width} tokens, blocks of {self.block}, "
            f"{self.density:.1%} of the key blocks."
        )

    @property
    def grid(self) -> Grid:
        """Where its tokens lie."""
        return Grid(self.frames, self.height, self.width)

    @property
    def spec(self) -> AttentionSpec:
        """What a selector is told first."""
        return AttentionSpec(self.head_dim, self.block, self.density)

    def twin(self) -> AttentionWorkload:
        """Itself if generated; for real heads generated ones of their shape."""
        return replace(self, is_generated=True)

    def instance(self, seed: int) -> Instance:
        """The seed's tensors with what is true of them."""
        return _instance(replace(self, seeds=12, is_optional=False), seed)


@dataclass(frozen=True, eq=False)
class Instance:
    """One trial's tensors, what a selector sees of them, and the true attention between blocks."""

    tensors: Tensors
    scene: Scene
    mass: np.ndarray  # (heads, query blocks, key blocks)
    out: np.ndarray  # dense attention's output, (heads, tokens, head dimension)


@lru_cache(maxsize=64)
def _instance(workload: AttentionWorkload, seed: int) -> Instance:
    from .simulator import attended

    rng = rng_of("attention.tensors", workload.name, seed)
    if workload.source == MINILM:
        tensors = stand_in(rng) if workload.is_generated else minilm(seed)
    else:
        tensors = GENERATORS[workload.source](workload.grid, workload.heads, workload.head_dim, rng)
    blocks = Blocks.uniform(workload.grid.tokens, workload.block)
    keep = max(1, round(workload.density * blocks.count))
    scene = Scene(tensors.q, tensors.k, blocks, blocks, keep, workload.grid)
    return Instance(tensors, scene, block_mass(tensors.q, tensors.k, blocks, blocks), attended(tensors, None))


def named_workloads() -> Mapping[str, AttentionWorkload]:
    """The named workloads."""
    every = [AttentionWorkload(name=name, source=name, is_generated=True, seeds=6) for name in GENERATORS]
    every.append(AttentionWorkload(name="clustered-25", source="clustered", density=0.25, is_generated=True, seeds=6, is_optional=True))
    every.append(
        AttentionWorkload(
            name=MINILM, source=MINILM, frames=TOKENS, height=1, width=1, heads=LAYERS * HEADS, head_dim=DIM, is_optional=True, seeds=6
        )
    )
    every.append(
        AttentionWorkload(
            name="smoke", source="decay", frames=4, height=4, width=4, heads=2, head_dim=16, block=8, density=0.25,
            is_generated=True, is_optional=True, seeds=2,
        )
    )  # fmt: skip
    return {each.name: each for each in every}


def adjusted(workload: AttentionWorkload, params: Mapping[str, Any]) -> AttentionWorkload:
    """The workload with parameters changed.

    Raises
    ------
    InputError
        If there is no such parameter, or its value is none.
    """
    own = {each.name: each.type for each in fields(AttentionWorkload)} | {"seeds": "int"}
    allowed = ("source", "frames", "height", "width", "heads", "head_dim", "block", "density")
    made: dict[str, Any] = {}
    for name, text in params.items():
        if name not in allowed:
            raise InputError(f"workloads of attention have no parameter {name!r}; allowed: {', '.join(allowed)}.")
        try:
            made[name] = text if name == "source" else float(text) if own[name] == "float" else int(text)
        except ValueError:
            raise InputError(f"{name} must be a number, got {text!r}.") from None
        if name != "source" and made[name] <= 0:
            raise InputError(f"{name} must be above 0, got {text}.")
    if "source" in made and made["source"] not in GENERATORS:
        raise InputError(f"source must be one of {', '.join(GENERATORS)}, got {made['source']!r}.")
    if made.get("density", workload.density) > 1:
        raise InputError(f"density must be at most 1, got {made['density']}.")
    fixed = [name for name in ("source", "frames", "height", "width", "heads", "head_dim") if name in made]
    if workload.source == MINILM and fixed:
        raise InputError(f"{', '.join(fixed)} of {MINILM} cannot be set: its heads are a model's. Set block or density.")
    changed = replace(workload, **made)
    return replace(changed, name=f"{workload.name}({','.join(f'{k}={v}' for k, v in made.items())})") if made else workload
