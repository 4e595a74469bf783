"""K-means on batches of heads, as attention needs it: warm starts, empty clusters, a final assignment that fits the centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cloudchamber.attention.model import Blocks
from cloudchamber.core.errors import InputError

ROWS = 4096  # assigned at a time: distances of n x k would not fit for long clips


@dataclass(frozen=True, eq=False)
class Clusters:
    """Labels of the rows, (batch, rows) int32; centres, (batch, clusters, dimension); squared distance in all; updates that were made."""

    labels: np.ndarray
    centres: np.ndarray
    inertia: float
    iterations: int

    def blocks(self) -> Blocks:
        """The permutation that puts each cluster's rows side by side, in their order."""
        k = self.centres.shape[1]
        sizes = np.stack([np.bincount(each, minlength=k) for each in self.labels]).astype(np.int32)
        return Blocks(sizes, np.argsort(self.labels, axis=1, kind="stable").astype(np.int32))


def batch_kmeans(
    x: np.ndarray,
    k: int,
    *,
    init: np.ndarray | Literal["k-means++", "random"] = "k-means++",
    iterations: int = 50,
    tolerance: float = 1e-4,
    rng: np.random.Generator | None = None,
) -> Clusters:
    """Cluster the rows of each item of a batch by Euclidean distance.

    Parameters
    ----------
    x : ndarray, shape (batch, rows, dimension)
    k : int
        Clusters, at most the rows.
    init : ndarray of shape (batch, k, dimension), "k-means++" or "random"
        Centres to start from: those of the last denoising step make two iterations enough.
    iterations : int
        Updates at most.
    tolerance : float
        Stop when no centre moves further.
    rng : Generator
        For the first centres; default: seed 0.

    Raises
    ------
    InputError
        If there are more clusters than rows, centres of another shape, or numbers that are not finite.

    Examples
    --------
    >>> batch_kmeans(np.array([[[0.0], [0.1], [5.0], [5.1]]]), 2).blocks().sizes.tolist()
    [[2, 2]]
    """
    if x.ndim != 3 or not 1 <= k <= x.shape[1]:
        raise InputError(f"x must have the shape (batch, rows, dimension) with at least {k} rows, got {x.shape}.")
    if not np.isfinite(x).all():
        raise InputError("rows to cluster must be finite.")
    rng = np.random.default_rng(0) if rng is None else rng
    if isinstance(init, str):
        start = _plus_plus if init == "k-means++" else _random
        centres = np.stack([start(each, k, rng) for each in x])
    else:
        centres = np.array(init, dtype=x.dtype)
        if centres.shape != (len(x), k, x.shape[2]):
            raise InputError(f"centres must have the shape {(len(x), k, x.shape[2])}, got {centres.shape}.")
    labels = np.zeros(x.shape[:2], np.int32)
    done, inertia = 0, 0.0
    for item in range(len(x)):
        made = 0
        for _ in range(iterations):
            labels[item], _ = _assigned(x[item], centres[item])
            moved = _updated(x[item], labels[item], centres[item])
            shift = float(np.abs(moved - centres[item]).max())
            centres[item] = moved
            made += 1
            if shift < tolerance:
                break
        labels[item], distance = _assigned(x[item], centres[item])
        inertia += distance
        done = max(done, made)
    return Clusters(labels, centres, inertia, done)


def _assigned(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """The nearest centre of each row, by one product of matrices; and the squared distances in all."""
    labels, total = np.empty(len(x), np.int32), 0.0
    norms = (centres**2).sum(axis=1)
    for at in range(0, len(x), ROWS):
        rows = x[at : at + ROWS]
        score = norms - 2 * (rows @ centres.T)
        best = score.argmin(axis=1)
        labels[at : at + ROWS] = best
        total += float((score[np.arange(len(rows)), best] + (rows**2).sum(axis=1)).sum())
    return labels, max(0.0, total)


def _updated(x: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Means of the clusters; an empty one keeps its centre."""
    sizes = np.bincount(labels, minlength=len(centres))
    filled = np.flatnonzero(sizes)
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes[filled])[:-1]])
    made = centres.copy()
    made[filled] = np.add.reduceat(x[order], starts, axis=0) / sizes[filled, None]
    return made


def _random(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    return x[rng.choice(len(x), k, replace=False)].copy()


def _plus_plus(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Each next centre by lot, with a chance that grows with the squared distance to those there are."""
    centres = np.empty((k, x.shape[1]), x.dtype)
    centres[0] = x[rng.integers(len(x))]
    away = ((x - centres[0]) ** 2).sum(axis=1).astype(np.float64)
    for i in range(1, k):
        total = away.sum()
        at = int(rng.integers(len(x))) if total <= 0 else int(min(np.searchsorted(np.cumsum(away), rng.random() * total), len(x) - 1))
        centres[i] = x[at]
        away = np.minimum(away, ((x - centres[i]) ** 2).sum(axis=1))
    return centres
