"""Compiled kernels of one decode step: weighted attention over scattered rows, and sampling from a counter-based generator.

``weighted`` is the one place where keys and values are read by the row; any kernel with the same arguments and results may stand in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15


def weighted(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    indptr: np.ndarray,
    rows: np.ndarray,
    log_weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Attention of each head to rows of its own: output, (heads, head dimension), and the log of the summed weights, (heads,).

    Parameters
    ----------
    q : ndarray of float32, shape (heads, head dimension)
    keys, values : ndarray of float32, shape (rows, head dimension)
    indptr, rows : ndarray of int64
        Head h reads ``rows[indptr[h]:indptr[h + 1]]``; with none, its output is 0 and the log -inf.
    log_weight : ndarray of float32 or None, shape (len(rows),)
        Added to the logits.
    """
    out, lse = np.zeros(q.shape, np.float32), np.empty(len(q), np.float64)
    bias = np.zeros(0, np.float32) if log_weight is None else log_weight
    _compiled()[0](q, keys, values, indptr, rows, bias, np.float32(1 / np.sqrt(q.shape[1])), out, lse)
    return out, lse


def stream(seed: int, layer: int, head: int, step: int) -> int:
    """The state from which one head's sample of one step is drawn: words mixed one after another.

    Examples
    --------
    >>> stream(0, 0, 1, 0) != stream(0, 1, 0, 0)
    True
    """
    state = 0
    for word in (seed, layer, head, step):
        state = mixed((state ^ (word & (2**64 - 1))) + GOLDEN)
    return state


def mixed(x: int) -> int:
    """Splitmix64's finaliser: every bit of the result depends on every bit of a 64-bit word."""
    x &= 2**64 - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return x ^ (x >> 31)


def drawn(pool: np.ndarray, start: int, stop: int, state: int) -> None:
    """Put a random choice of the pool's later items at the places from ``start`` to ``stop``, in place: Fisher and Yates.

    Drawn further with the same state, the first ``stop`` items are a sample without replacement of that size.
    """
    _compiled()[1](pool, start, stop, np.uint64(state))


def uniforms(count: int, start: int, state: int) -> np.ndarray:
    """Numbers in [0, 1) at the places from ``start`` of a stream.

    Examples
    --------
    >>> bool((uniforms(6, 0, 7)[4:] == uniforms(2, 4, 7)).all())
    True
    """
    x = np.uint64(state) + np.arange(start + 1, start + count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53)


@cache
def _compiled() -> tuple[Callable[..., Any], Callable[..., Any]]:
    from cloudchamber.core.jit import njit

    return njit(_weighted, fastmath={"reassoc", "contract", "nsz", "arcp"}), njit(_drawn)


def _weighted(q, keys, values, indptr, rows, bias, scale, out, lse):  # type: ignore[no-untyped-def]  # compiled
    heads, dim = q.shape
    for h in range(heads):
        first, count = indptr[h], indptr[h + 1] - indptr[h]
        logits = np.empty(count, np.float32)
        top = np.float32(-np.inf)
        for i in range(count):
            row = rows[first + i]
            dot = np.float32(0)
            for d in range(dim):
                dot += q[h, d] * keys[row, d]
            dot *= scale
            if len(bias):
                dot += bias[first + i]
            logits[i] = dot
            if not dot <= top:  # so that a NaN is not lost
                top = dot
        total = 0.0
        for i in range(count):
            p = np.exp(logits[i] - top)
            total += p
            row = rows[first + i]
            for d in range(dim):
                out[h, d] += p * values[row, d]
        lse[h] = top + np.log(total) if count else -np.inf
        for d in range(dim):
            out[h, d] = out[h, d] / np.float32(total) if count else np.float32(0)


def _drawn(pool, start, stop, state):  # type: ignore[no-untyped-def]  # compiled
    n = len(pool)
    for i in range(start, stop):
        x = state + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
        j = i + np.int64(((x >> np.uint64(32)) * np.uint64(n - i)) >> np.uint64(32))
        pool[i], pool[j] = pool[j], pool[i]
