"""Workloads of ``attention.radial``: fields of decaying attention, and one that is cut into scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .fields import Field, decay_field, scene_cut_field
from .model import RadialSpec, bands, count
from .policies.paper import RadialPaper


@dataclass(frozen=True, kw_only=True)
class RadialWorkload(Workload):
    """A video of ``frames`` x ``tokens``, and heads whose attention decays at rates drawn from ``rates``.

    Parameters
    ----------
    frames, tokens, heads : int
    rates : tuple of (float, float)
        Range of alpha (per frame) and beta (per token), drawn log-uniformly.
    has_cut : bool
        Three scenes, the third like the first.
    density : float or None
        Budget; None: what the paper's mask spends on this shape.
    """

    frames: int = 32
    tokens: int = 64
    heads: int = 8
    rates: tuple[float, float] = (0.05, 2.0)
    has_cut: bool = False
    density: float | None = None

    @property
    def summary(self) -> str:
        """Shape and budget."""
        kind = "three scenes" if self.has_cut else "decay"
        return f"{kind}: {self.heads} heads over {self.frames} frames of {self.tokens} tokens, {self.spec.density:.1%} of all pairs."

    @property
    def spec(self) -> RadialSpec:
        """What a policy is told."""
        return RadialSpec(self.frames, self.tokens, paper_density(self.frames, self.tokens) if self.density is None else self.density)

    def field(self, seed: int) -> Field:
        """The seed's heads."""
        rng = rng_of("attention.radial.field", self.name, seed)
        low, high = np.log(self.rates)
        alpha, beta = (np.exp(rng.uniform(low, high, self.heads)) for _ in range(2))
        sink = rng.uniform(0, 0.3, self.heads)
        if not self.has_cut:
            return decay_field(self.frames, self.tokens, alpha, beta, sink)
        cuts = np.sort(rng.choice(np.arange(self.frames // 4, 3 * self.frames // 4), 2, replace=False))
        return scene_cut_field(self.frames, self.tokens, alpha, beta, sink, (int(cuts[0]), int(cuts[1])))


@lru_cache(maxsize=64)
def paper_density(f: int, s: int) -> float:
    """Share of pairs that the paper's mask reads, sink included."""
    policy = RadialPaper()
    policy.reset(RadialSpec(f, s), np.random.default_rng(0))
    return count(bands(policy, f, s), f, s) / (f * s) ** 2


def named_workloads() -> Mapping[str, RadialWorkload]:
    """The named workloads."""
    every = (
        RadialWorkload(name="decay-32x64", is_generated=True),
        RadialWorkload(name="decay-128x64", frames=128, is_generated=True),
        RadialWorkload(name="decay-32x256", tokens=256, is_generated=True, is_optional=True),
        RadialWorkload(name="scene-cut", has_cut=True, is_generated=True),
        RadialWorkload(name="smoke", frames=8, tokens=16, heads=3, is_generated=True, is_optional=True, seeds=2),
    )
    return {each.name: each for each in every}


def adjusted(workload: RadialWorkload, params: Mapping[str, Any]) -> RadialWorkload:
    """The workload with parameters changed.

    Raises
    ------
    InputError
        If there is no such parameter, or its value is none.
    """
    made: dict[str, Any] = {}
    for name, text in params.items():
        if name not in ("frames", "tokens", "heads", "density"):
            raise InputError(f"workloads of attention.radial have no parameter {name!r}; allowed: frames, tokens, heads, density.")
        try:
            made[name] = float(text) if name == "density" else int(text)
        except ValueError:
            raise InputError(f"{name} must be a number, got {text!r}.") from None
        if made[name] <= 0 or (name == "density" and made[name] > 1):
            raise InputError(f"{name} must be above 0{' and at most 1' if name == 'density' else ''}, got {text}.")
    changed = replace(workload, **made)
    return replace(changed, name=f"{workload.name}({','.join(f'{k}={v}' for k, v in made.items())})") if made else workload
