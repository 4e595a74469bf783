"""K-means on batches of heads, as attention needs it: warm starts, empty clusters, a final assignment that fits the centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csc_matrix

from cloudchamber.attention.model import Blocks
from cloudchamber.core.errors import InputError

Metric = Literal["l2", "cosine", "dot"]
METRICS = ("l2", "cosine", "dot")
ROWS = 1024  # assigned at a time: distances of n x k would not fit for long clips, and these stay in a processor's cache


@dataclass(frozen=True, eq=False)
class Clusters:
    """Labels of the rows, (batch, rows) int32; centres, (batch, clusters, dimension); what the metric sums to; updates that were made."""

    labels: np.ndarray
    centres: np.ndarray
    inertia: float
    iterations: int

    def blocks(self) -> Blocks:
        """The permutation that puts each cluster's rows side by side, in their order."""
        k = self.centres.shape[1]
        sizes = np.stack([np.bincount(each, minlength=k) for each in self.labels]).astype(np.int32)
        narrow = self.labels.astype(np.int16) if k < 2**15 else self.labels  # short numbers are sorted by digits, ten times faster
        return Blocks(sizes, np.argsort(narrow, axis=1, kind="stable").astype(np.int32))


def batch_kmeans(
    x: np.ndarray,
    k: int,
    *,
    init: np.ndarray | Literal["k-means++", "random"] = "k-means++",
    iterations: int = 50,
    tolerance: float = 1e-4,
    metric: Metric = "l2",
    rng: np.random.Generator | None = None,
) -> Clusters:
    """Cluster the rows of each item of a batch.

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
        Stop when no coordinate of a centre moves further.
    metric : {"l2", "cosine", "dot"}
        "l2": squared distance to means. The others cluster by direction, to centres of length 1: "cosine" counts all rows alike, by
        1 - x·c / |x|; "dot" by their length, |x| - x·c.
    rng : Generator
        For the first centres; default: seed 0.

    Raises
    ------
    InputError
        If there are more clusters than rows, centres of another shape, no such metric, or numbers that are not finite.

    Examples
    --------
    >>> batch_kmeans(np.array([[[0.0], [0.1], [5.0], [5.1]]]), 2).blocks().sizes.tolist()
    [[2, 2]]
    """
    if x.ndim != 3 or not 1 <= k <= x.shape[1]:
        raise InputError(f"x must have the shape (batch, rows, dimension) with at least {k} rows, got {x.shape}.")
    if metric not in METRICS:
        raise InputError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}.")
    if not np.isfinite(x).all():
        raise InputError("rows to cluster must be finite.")
    if metric == "cosine":
        x = _unit(x)
    rng = np.random.default_rng(0) if rng is None else rng
    if isinstance(init, str):
        start = _plus_plus if init == "k-means++" else _random
        centres = np.stack([start(each, k, rng) for each in x]) if len(x) else np.empty((0, k, x.shape[2]), x.dtype)
    else:
        centres = np.array(init, dtype=x.dtype)
        if centres.shape != (len(x), k, x.shape[2]):
            raise InputError(f"centres must have the shape {(len(x), k, x.shape[2])}, got {centres.shape}.")
    if metric != "l2":
        centres = _unit(centres)
    labels = np.zeros(x.shape[:2], np.int32)
    done, inertia = 0, 0.0
    for item in range(len(x)):
        labels[item], centres[item], made = _lloyd(x[item], centres[item], iterations, tolerance, metric)
        inertia += _inertia(x[item], labels[item], centres[item], metric)
        done = max(done, made)
    return Clusters(labels, centres, inertia, done)


def _lloyd(x: np.ndarray, centres: np.ndarray, iterations: int, tolerance: float, metric: Metric) -> tuple[np.ndarray, np.ndarray, int]:
    """Assign and update in turns; the labels are those of the centres that are returned."""
    made, shift = 0, np.inf
    while made < iterations and shift >= tolerance:
        moved = _updated(x, _assigned(x, centres, metric), centres)
        moved = moved if metric == "l2" else _unit(moved, centres)
        shift = float(np.abs(moved - centres).max())
        centres, made = moved, made + 1
    return _assigned(x, centres, metric), centres, made


def _assigned(x: np.ndarray, centres: np.ndarray, metric: Metric) -> np.ndarray:
    """The nearest centre of each row, by one product of matrices."""
    labels = np.empty(len(x), np.int32)
    towards, norms = np.ascontiguousarray(-2 * centres.T), (centres**2).sum(axis=1) if metric == "l2" else None
    room = np.empty((min(ROWS, len(x)), len(centres)), x.dtype)  # used again: fresh pages cost as much as the product
    for at in range(0, len(x), ROWS):
        rows = x[at : at + ROWS]
        score = np.matmul(rows, towards, out=room[: len(rows)])
        labels[at : at + ROWS] = (score if norms is None else np.add(score, norms, out=score)).argmin(axis=1)
    return labels


def _inertia(x: np.ndarray, labels: np.ndarray, centres: np.ndarray, metric: Metric) -> float:
    """From the sums of the clusters, without a row's own distance: |x - c|^2 = |x|^2 - 2 x.c + |c|^2."""
    towards = float(np.vdot(sums_of(x, labels, len(centres)), centres))
    if metric == "l2":
        sizes = np.bincount(labels, minlength=len(centres))
        return max(0.0, float(np.vdot(x, x)) - 2 * towards + float(sizes @ (centres**2).sum(axis=1)))
    return max(0.0, float(np.linalg.norm(x, axis=1).sum()) - towards)


def _updated(x: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Means of the clusters; an empty one keeps its centre."""
    sizes = np.bincount(labels, minlength=len(centres))[:, None]
    return np.where(sizes > 0, sums_of(x, labels, len(centres)) / np.maximum(sizes, 1).astype(x.dtype), centres)


def sums_of(x: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Sums of the rows of each label, (k, dimension): a product with a sparse matrix that has a single 1 in each column."""
    owner = csc_matrix((np.ones(len(labels), x.dtype), labels, np.arange(len(labels) + 1)), shape=(k, len(labels)))
    return np.asarray(owner @ x)


def _unit(x: np.ndarray, instead: np.ndarray | None = None) -> np.ndarray:
    """Rows of length 1; one of length 0 stays, or is taken from ``instead``."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.where(length > 0, x / np.where(length > 0, length, 1), x if instead is None else instead).astype(x.dtype)


def _random(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    return x[rng.choice(len(x), k, replace=False)].copy()


def _plus_plus(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Each next centre by lot, with a chance that grows with the squared distance to those there are."""
    centres = np.empty((k, x.shape[1]), x.dtype)
    norms, centres[0] = (x.astype(np.float64) ** 2).sum(axis=1), x[rng.integers(len(x))]
    away = _away(x, norms, centres[0])
    for i in range(1, k):
        total = away.sum()
        at = int(rng.integers(len(x))) if total <= 0 else int(min(np.searchsorted(np.cumsum(away), rng.random() * total), len(x) - 1))
        centres[i] = x[at]
        away = np.minimum(away, _away(x, norms, centres[i]))
    return centres


def _away(x: np.ndarray, norms: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Squared distances; what rounding leaves of none is none."""
    found = norms - 2.0 * (x @ centre) + float((centre.astype(np.float64) ** 2).sum())
    return np.where(found > 1e-6 * (norms + 1e-30), found, 0.0)
