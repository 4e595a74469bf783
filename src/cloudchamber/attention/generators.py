"""Queries, keys and values whose attention has a known shape, from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .model import Grid, scale_of


@dataclass(frozen=True, eq=False)
class Tensors:
    """Attention's inputs: q, k and v of shape (heads, tokens, head dimension), float32, and where the tokens lie."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    grid: Grid


def iid(grid: Grid, heads: int, dim: int, rng: np.random.Generator) -> Tensors:
    """Independent normal numbers: the worst case, nothing can be foreseen from a block's mean."""
    return _tensors(*_normal(grid, heads, dim, rng), grid)


def flat(grid: Grid, heads: int, dim: int, rng: np.random.Generator) -> Tensors:
    """Every key counts about the same."""
    q, k, v = _normal(grid, heads, dim, rng)
    return _tensors(0.05 * q, k, v, grid)


def heavy(grid: Grid, heads: int, dim: int, rng: np.random.Generator, keys: int = 8, logit: float = 6.0) -> Tensors:
    """A few keys that every query prefers by the same logit."""
    q, k, v = _normal(grid, heads, dim, rng)
    towards = rng.standard_normal((heads, 1, dim))
    towards *= np.sqrt(logit / scale_of(dim)) / np.linalg.norm(towards, axis=2, keepdims=True)
    q += towards
    for h in range(heads):
        k[h, rng.choice(grid.tokens, keys, replace=False)] += towards[h]
    return _tensors(q, k, v, grid)


def needle(grid: Grid, heads: int, dim: int, rng: np.random.Generator, logit: float = 10.0) -> Tensors:
    """Each query has one key of its own, anywhere, that it prefers by a logit; queries beside each other share it mostly."""
    q, k, v = _normal(grid, heads, dim, rng)
    run = 32
    for h in range(heads):
        keys = np.repeat(rng.integers(grid.tokens, size=-(-grid.tokens // run)), run)[: grid.tokens]
        towards = k[h, keys] / (np.linalg.norm(k[h, keys], axis=1, keepdims=True) ** 2)
        q[h] += towards * logit / scale_of(dim)
    return _tensors(q, k, v, grid)


def decay(
    grid: Grid,
    heads: int,
    dim: int,
    rng: np.random.Generator,
    alpha: tuple[float, float] = (0.05, 2.0),
    beta: tuple[float, float] = (0.05, 2.0),
    noise: float = 0.3,
) -> Tensors:
    """Logits -alpha |frames apart| - beta |rows and columns apart| + noise, with alpha and beta drawn for each head.

    Exact: |x - y| is the number of thresholds between x and y, and so, but for a constant of the row, a product of two indicator vectors.
    """
    places = grid.positions()
    steps = [np.arange(size - 1) for size in (grid.frames, grid.height, grid.width)]
    above = [(places[:, axis, None] > each).astype(np.float64) for axis, each in enumerate(steps)]
    used = sum(each.shape[1] for each in above)
    if used >= dim:
        raise ValueError(f"a grid of {grid.frames} x {grid.height} x {grid.width} needs a head dimension above {used}, got {dim}.")
    q, k, v = _normal(grid, heads, dim, rng)
    q *= np.sqrt(noise / scale_of(dim)) / dim**0.25
    k *= np.sqrt(noise / scale_of(dim)) / dim**0.25
    for h in range(heads):
        rates = np.exp(rng.uniform(*np.log(alpha))), *(float(np.exp(rng.uniform(*np.log(beta)))),) * 2
        at = 0
        for rate, each in zip(rates, above, strict=True):
            there = slice(at, at + each.shape[1])
            q[h, :, there] = (2 * each - 1) * np.sqrt(rate / scale_of(dim))
            k[h, :, there] = each * np.sqrt(rate / scale_of(dim))
            at = there.stop
    return _tensors(q, k, v, grid)


def clustered(
    grid: Grid,
    heads: int,
    dim: int,
    rng: np.random.Generator,
    groups: int = 24,
    separation: float = 1.6,
    spread: float = 0.8,
    scatter: float = 0.25,
) -> Tensors:
    """Semantic groups: tokens of one group attend to each other; groups lie in regions that move, a share of tokens anywhere."""
    label = _regions(grid, groups, rng)
    strays = rng.random(grid.tokens) < scatter
    label[strays] = rng.integers(groups, size=int(strays.sum()))
    q, k, v = _normal(grid, heads, dim, rng)
    for h in range(heads):
        centres = separation * rng.standard_normal((groups, dim))
        q[h], k[h] = (centres[label] + spread * each for each in (q[h], k[h]))
        v[h] += centres[label] @ (rng.standard_normal((dim, dim)) / np.sqrt(dim))
    return _tensors(q, k, v, grid)


def _regions(grid: Grid, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Nearest of some centres that drift from frame to frame."""
    places = grid.positions().astype(np.float64)
    at, drift = rng.random((groups, 2)), rng.uniform(-0.03, 0.03, (groups, 2))
    now = (at + drift * places[:, :1, None].reshape(-1, 1, 1)) % 1.0
    here = (places[:, None, 1:] + 0.5) / np.array([grid.height, grid.width])
    return np.asarray(np.linalg.norm(here - now, axis=2).argmin(axis=1))


def _normal(grid: Grid, heads: int, dim: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    q, k, v = (rng.standard_normal((heads, grid.tokens, dim)) for _ in range(3))
    return q, k, v


def _tensors(q: np.ndarray, k: np.ndarray, v: np.ndarray, grid: Grid) -> Tensors:
    q, k, v = (each.astype(np.float32) for each in (q, k, v))
    return Tensors(q, k, v, grid)


GENERATORS: dict[str, Callable[..., Tensors]] = {each.__name__: each for each in (iid, flat, heavy, needle, decay, clustered)}
