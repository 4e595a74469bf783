"""A pilot sample's numbers, for one head or many at once."""

from __future__ import annotations

import numpy as np

from .model import PilotStats

RANK_ROWS = 256  # effective ranks are judged on so many pilot keys at most: they need no more, and cost the square of the dimension


def pilot_stats(a: np.ndarray, v: np.ndarray, numerator: np.ndarray, denominator: np.ndarray | float, n_s: int, n: int) -> list[PilotStats]:
    """Numbers of pilot samples.

    Parameters
    ----------
    a : ndarray, shape (heads, pilot)
        Weights exp(logit - m) of the pilot's keys.
    v : ndarray, shape (heads, pilot, head dimension)
    numerator, denominator : ndarray, shape (heads, head dimension) and (heads,)
        Σ a v and Σ a over the deterministic keys, with the same m.
    n_s, n : int
        Residual keys, and all.
    """
    b0, dim = v.shape[1:]
    weighted = a[..., None] * v
    scale = n_s / b0
    total = numerator + scale * weighted.sum(axis=1)
    mass = denominator + scale * a.sum(axis=1)
    out = (total / mass[:, None]).astype(v.dtype)  # in double precision all that follows would take twice as long
    error = weighted - a[..., None] * out[:, None]
    error -= error.mean(axis=1, keepdims=True)
    weighted -= weighted.mean(axis=1, keepdims=True)
    squares = np.einsum("tjd,tjd->tj", error, error)
    columns = (
        np.asarray(mass, np.float64),
        np.linalg.norm(total, axis=1),
        a.var(axis=1, ddof=1, dtype=np.float64),
        np.einsum("tjd,tjd->t", weighted, weighted) / (b0 - 1),
        effective_rank(weighted[:, :RANK_ROWS]),
        squares.sum(axis=1) / (b0 - 1),
        effective_rank(error[:, :RANK_ROWS]),
        np.sqrt(squares.max(axis=1)),
    )
    return [PilotStats(n, n_s, b0, dim, *map(float, row)) for row in zip(*columns, strict=True)]


def effective_rank(centred: np.ndarray) -> np.ndarray:
    """(Tr C)² / Tr C² of the covariances of samples (heads, rows, dimension), at least 1: how many equal directions spread as much."""
    size = np.abs(centred).max(axis=(1, 2), keepdims=True)
    centred = centred / np.where(size > 0, size, 1)  # a fourth power of small weights would be 0 in single precision
    rows, dim = centred.shape[1:]
    gram = centred @ centred.swapaxes(1, 2) if rows < dim else centred.swapaxes(1, 2) @ centred
    trace, square = np.einsum("tii->t", gram), np.einsum("tij,tij->t", gram, gram)
    return np.asarray(np.maximum(1.0, trace**2 / np.where(square > 0, square, 1)))
