"""Workloads of ``attention.verified``: a population, its length, what is read of it anyway, and what is promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from cloudchamber.attention.generators import Tensors
from cloudchamber.attention.minilm import DIM, TOKENS, minilm, stand_in
from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .model import BudgetSpec, PilotStats, Sampling, chances
from .pilot import pilot_stats
from .populations import POPULATIONS, Population

MINILM = "minilm"
PAGE = 16  # keys that share a bound


@dataclass(frozen=True, kw_only=True)
class VerifiedWorkload(Workload):
    """Many samples of some heads over ``n`` keys.

    Parameters
    ----------
    source : str
        Name of a population, or ``minilm``: queries of a real model's heads over real text, which have their own shape.
    n, head_dim : int
    epsilon, delta : float
        The promise.
    sink, window : int
        Keys at both ends that are read anyway.
    top, pilot : float
        Shares of all keys that the scorer adds to them, and of the residual keys that the pilot takes.
    noise : float
        Standard deviation of the scorer's error, in logits.
    floor : int
        Keys of the pilot at least.
    cap : float
        Share of the residual keys that may be read at most.
    samples : int
        Samples for a trial, shared out among the heads.
    """

    source: str
    n: int = 8192
    head_dim: int = 64
    epsilon: float = 0.1
    delta: float = 0.1
    sink: int = 128
    window: int = 128
    top: float = 0.02
    pilot: float = 0.02
    noise: float = 0.0
    floor: int = 32
    cap: float = 1.0
    samples: int = 400

    @property
    def summary(self) -> str:
        """Shape and promise."""
        return (
            f"{self.source}: {self.n:,} keys, dimension {self.head_dim}; error above {self.epsilon:g} in at most {self.delta:.0%} of "
            f"{self.samples} samples."
        )

    @property
    def spec(self) -> BudgetSpec:
        """What a budget is told first."""
        return BudgetSpec(self.epsilon, self.delta, self.floor, self.pilot, self.cap)

    def twin(self) -> VerifiedWorkload:
        """Itself if generated; for real heads generated ones of their shape."""
        return replace(self, is_generated=True)

    def instance(self, seed: int) -> list[Head]:
        """The seed's heads, with the samples that every budget cuts its own from."""
        return _instance(replace(self, seeds=12, is_optional=False), seed)


@dataclass(frozen=True, eq=False)
class Head:
    """A head whose residual keys are ranked at random many times: the first b ranks are a sample of b without replacement.

    Parameters
    ----------
    terms : ndarray, shape (n_s, head dimension + 1)
        a v and a of every residual key.
    anyway : ndarray, shape (head dimension + 1,)
        Their sums over the deterministic keys.
    ranks : ndarray of int32, shape (samples, n_s)
    pilots : list of PilotStats
        Of each sample.
    n : int
        Keys in all.
    bounds : ndarray, shape (n_s,)
        Of each residual key's page: the largest score in it, whichever keys are read anyway.
    rng : Generator
        For draws by these bounds.
    """

    terms: np.ndarray
    anyway: np.ndarray
    ranks: np.ndarray
    pilots: list[PilotStats]
    n: int
    bounds: np.ndarray
    rng: np.random.Generator

    @property
    def n_s(self) -> int:
        """Residual keys."""
        return len(self.terms)

    @cached_property
    def draws(self) -> Draws:
        """As many samples by chances as there are uniform ones."""
        p = chances(self.bounds)
        edges = np.cumsum(p)
        order = np.empty(self.ranks.shape, np.int32)
        for row in order:
            row[:] = np.minimum(np.searchsorted(edges, self.rng.random(self.n_s) * edges[-1], side="right"), self.n_s - 1)
        b0 = self.pilots[0].b0
        pilots: list[PilotStats] = []
        for some in np.array_split(order[:, :b0], max(1, len(order) // 50)):
            a = self.terms[some, -1]
            values = self.terms[some, :-1] / np.where(a > 0, a, 1)[..., None]
            weight = a / (self.n_s * p[some])
            pilots += pilot_stats(weight, values, np.tile(self.anyway[:-1], (len(some), 1)), self.anyway[-1], self.n_s, self.n)
        return Draws(p, order, pilots)

    def pilots_of(self, sampling: Sampling) -> list[PilotStats]:
        """Of each sample, drawn one way or the other."""
        return self.pilots if sampling == "uniform" else self.draws.pilots

    def weights(self, samples: np.ndarray, b: np.ndarray, sampling: Sampling = "uniform") -> np.ndarray:
        """What every residual key counts for in some of the samples cut to these sizes, (samples, n_s): on average 1."""
        if sampling == "uniform":
            return np.where(self.ranks[samples] < b[:, None], (self.n_s / b)[:, None], 0.0)
        counts = np.stack([np.bincount(self.draws.order[i, :size], minlength=self.n_s) for i, size in zip(samples, b, strict=True)])
        return np.asarray(counts / (b[:, None] * self.draws.chances))

    def density(self, b: np.ndarray, sampling: Sampling = "uniform") -> np.ndarray:
        """Share of all keys that the samples read, cut to these sizes; a key that is drawn twice is read once."""
        read = np.array(b, np.int64)
        if sampling == "importance":
            for i in np.flatnonzero(read < self.n_s):
                read[i] = np.count_nonzero(np.bincount(self.draws.order[i, : read[i]], minlength=self.n_s))
        return np.asarray((self.n - self.n_s + read) / self.n)


@dataclass(frozen=True, eq=False)
class Draws:
    """Samples of residual keys with replacement, by chances.

    Parameters
    ----------
    chances : ndarray, shape (n_s,)
    order : ndarray of int32, shape (samples, n_s)
        The first b of a row are a sample of b draws.
    pilots : list of PilotStats
    """

    chances: np.ndarray
    order: np.ndarray
    pilots: list[PilotStats]


@lru_cache(maxsize=4)
def _instance(workload: VerifiedWorkload, seed: int) -> list[Head]:
    rng = rng_of("attention.verified.samples", workload.name, seed)
    if workload.source == MINILM:
        populations = real_heads(stand_in(rng) if workload.is_generated else minilm(seed), rng)
    else:
        populations = POPULATIONS[workload.source](workload.n, workload.head_dim, rng)
    return [head_of(each, workload, -(-workload.samples // len(populations)), rng) for each in populations]


def real_heads(tensors: Tensors, rng: np.random.Generator, count: int = 8) -> list[Population]:
    """Some of a model's heads, one query of each."""
    found = []
    for h in rng.choice(len(tensors.q), count, replace=False).tolist():
        q = tensors.q[h, rng.integers(len(tensors.q[h]))].astype(np.float64)
        found.append(Population(tensors.k[h] @ q / np.sqrt(len(q)), tensors.v[h].astype(np.float64)))
    return found


def head_of(population: Population, workload: VerifiedWorkload, samples: int, rng: np.random.Generator) -> Head:
    """Split a population's keys, and sample the residual ones many times.

    Raises
    ------
    InputError
        If nothing is left to sample.
    """
    n = len(population.logits)
    scores = population.logits + workload.noise * rng.standard_normal(n)
    starts = np.arange(0, n, PAGE)
    bounds = np.repeat(np.maximum.reduceat(scores, starts), np.diff(starts, append=n))
    scores[: workload.sink] = scores[n - workload.window :] = np.inf
    read = min(n, workload.sink + workload.window + round(workload.top * n))
    residual = np.sort(np.argsort(-scores, kind="stable")[read:])
    if len(residual) < workload.floor:
        raise InputError(f"{len(residual)} of {n} keys are left to sample, {workload.floor} are needed; lower sink, window, top or floor.")
    a = np.exp(population.logits - population.logits.max())
    every = np.column_stack([a[:, None] * population.values, a])
    terms = every[residual]
    anyway = every.sum(axis=0) - terms.sum(axis=0)
    ranks = rng.permuted(np.tile(np.arange(len(residual), dtype=np.int32), (samples, 1)), axis=1)
    b0 = workload.spec.pilot_keys(len(residual))
    pilots: list[PilotStats] = []
    for some in np.array_split(ranks, max(1, samples // 50)):  # so that a chunk of pilots stays in the cache
        at = np.nonzero(some < b0)[1].reshape(len(some), b0)
        chosen = population.values[residual][at]
        pilots += pilot_stats(terms[at, -1], chosen, np.tile(anyway[:-1], (len(some), 1)), anyway[-1], len(residual), n)
    return Head(terms, anyway, ranks, pilots, n, bounds[residual], rng.spawn(1)[0])


def named_workloads() -> Mapping[str, VerifiedWorkload]:
    """The named workloads."""
    every = [
        VerifiedWorkload(name=name, source=name, is_generated=True, seeds=6) for name in ("flat", "normal", "heavy", "zero-mean", "alike")
    ]
    every += [VerifiedWorkload(name=name, source=name, n=4096, is_generated=True, seeds=6) for name in ("mixture", "drift")]
    every += [
        VerifiedWorkload(name="missed", source="heavy", noise=10.0, is_generated=True, seeds=6),
        VerifiedWorkload(name="normal-1k", source="normal", n=1024, sink=16, window=16, is_generated=True, is_optional=True, seeds=6),
        VerifiedWorkload(name="normal-tight", source="normal", epsilon=0.05, delta=0.05, is_generated=True, is_optional=True, seeds=6),
        VerifiedWorkload(
            name=MINILM, source=MINILM, n=TOKENS, head_dim=DIM, epsilon=0.2, sink=16, window=16, is_optional=True, seeds=6
        ),
        VerifiedWorkload(
            name="smoke", source="normal", n=1024, head_dim=32, epsilon=0.2, sink=16, window=16, samples=100,
            is_generated=True, is_optional=True, seeds=2,
        ),
    ]  # fmt: skip
    return {each.name: each for each in every}


def adjusted(workload: VerifiedWorkload, params: Mapping[str, Any]) -> VerifiedWorkload:
    """The workload with parameters changed.

    Raises
    ------
    InputError
        If there is no such parameter, or its value is none.
    """
    own = {each.name: each.type for each in fields(VerifiedWorkload) if each.name not in {base.name for base in fields(Workload)}}
    made: dict[str, Any] = {}
    for name, text in params.items():
        if name not in own:
            raise InputError(f"workloads of attention.verified have no parameter {name!r}; allowed: {', '.join(own)}.")
        try:
            made[name] = text if name == "source" else float(text) if own[name] == "float" else int(text)
        except ValueError:
            raise InputError(f"{name} must be a number, got {text!r}.") from None
    if "source" in made and made["source"] not in POPULATIONS:
        raise InputError(f"source must be one of {', '.join(POPULATIONS)}, got {made['source']!r}.")
    fixed = [name for name in ("source", "n", "head_dim") if name in made]
    if workload.source == MINILM and fixed:
        raise InputError(f"{', '.join(fixed)} of {MINILM} cannot be set: its heads are a model's.")
    changed = replace(workload, **made)
    _ = changed.spec  # refuses a promise that is none
    for name, least in (("n", 1), ("head_dim", 1), ("samples", 1), ("sink", 0), ("window", 0), ("noise", 0), ("top", 0), ("pilot", 0)):
        value = getattr(changed, name)
        if value < least or (name in ("top", "pilot") and value > 1):
            raise InputError(f"{name} must be at least {least}{' and at most 1' if name in ('top', 'pilot') else ''}, got {value}.")
    return replace(changed, name=f"{workload.name}({','.join(f'{k}={v}' for k, v in made.items())})") if made else workload
