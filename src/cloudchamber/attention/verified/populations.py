"""Heads whose logits and values have a known shape, from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Population:
    """One query of one head: the logit of every key, (n,), and the values, (n, head dimension)."""

    logits: np.ndarray
    values: np.ndarray


CENTRE = 0.5  # length of the mean value over the deviation of values, both for each dimension


def flat(n: int, dim: int, rng: np.random.Generator) -> list[Population]:
    """Every key counts about the same: where the most important keys hold little."""
    return [Population(0.1 * rng.standard_normal(n), _values(n, dim, rng))]


def normal(n: int, dim: int, rng: np.random.Generator) -> list[Population]:
    """Independent normal logits."""
    return [Population(rng.standard_normal(n), _values(n, dim, rng))]


def heavy(n: int, dim: int, rng: np.random.Generator, keys: int = 8, logit: float = 6.0) -> list[Population]:
    """A few keys that stand out: where a sample finds nothing."""
    logits = rng.standard_normal(n)
    logits[rng.choice(n, keys, replace=False)] += logit
    return [Population(logits, _values(n, dim, rng))]


def zero_mean(n: int, dim: int, rng: np.random.Generator) -> list[Population]:
    """Flat logits and values that cancel: the output is so small that no sample can tell its length."""
    return [Population(0.1 * rng.standard_normal(n), rng.standard_normal((n, dim)))]


def mixture(n: int, dim: int, rng: np.random.Generator) -> list[Population]:
    """Half of the heads flat, half with keys that stand out."""
    return flat(n, dim, rng) + heavy(n, dim, rng)


def drift(n: int, dim: int, rng: np.random.Generator, steps: int = 8, sharpness: float = 1.5) -> list[Population]:
    """One head over some steps, its query turning by a right angle; values go with the keys."""
    keys = rng.standard_normal((n, 2))
    values = _values(n, dim, rng) + keys @ (0.5 * rng.standard_normal((2, dim)))
    angles = np.linspace(0, np.pi / 2, steps)
    return [Population(sharpness * keys @ np.array([np.cos(angle), np.sin(angle)]), values) for angle in angles]


def alike(n: int, dim: int, rng: np.random.Generator, page: int = 16, sharpness: float = 1.2) -> list[Population]:
    """Keys of a page are alike: its bound tells what they are worth."""
    logits = np.repeat(sharpness * rng.standard_normal(-(-n // page)), page)[:n] + 0.2 * rng.standard_normal(n)
    return [Population(logits, _values(n, dim, rng))]


def _values(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    return CENTRE * rng.standard_normal(dim) + rng.standard_normal((n, dim))


POPULATIONS: dict[str, Callable[..., list[Population]]] = {
    each.__name__.replace("_", "-"): each for each in (flat, normal, heavy, zero_mean, mixture, drift, alike)
}
