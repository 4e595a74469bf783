"""What a cluster rule is shown of a head: the estimates, and the few queries that are looked at in full."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import Blocks, pooled, scale_of

from .model import ClusterView

STRIDE = 8  # tokens of an antidiagonal


def view_of(
    q: np.ndarray,
    k: np.ndarray,
    q_blocks: Blocks,
    k_blocks: Blocks,
    places: tuple[np.ndarray, np.ndarray],
    drawn: np.ndarray,
    *,
    p: float = 0.0,
    antidiagonals: bool = True,
) -> ClusterView:
    """One head, its tokens in the order of the clusters.

    Parameters
    ----------
    q, k : ndarray, shape (tokens, head dimension)
    q_blocks, k_blocks : Blocks
        Of this head.
    places : tuple of two ndarrays of shape (tokens, 3)
        Where the queries and the keys lie, in the same order.
    drawn : ndarray of int
        Queries that are looked at in full, in ascending order.
    antidiagonals : bool
        Whether to compute that estimate, which costs an eighth of the scores of dense attention.
    """
    (mean_q, var_q, at_q), (mean_k, var_k, at_k) = (
        _moments(x, blocks, place) for x, blocks, place in ((q, q_blocks, places[0]), (k, k_blocks, places[1]))
    )
    scale = scale_of(q.shape[1])
    spread = 0.5 * scale**2 * ((mean_q**2) @ var_k.T + var_q @ (mean_k**2).T)
    sizes_q, sizes_k = (each.sizes[0].astype(np.int64) for each in (q_blocks, k_blocks))
    logits = np.where(sizes_k > 0, scale * mean_q @ mean_k.T, -np.inf)  # an empty cluster's mean is no key
    weight = sizes_k * np.exp(logits - logits.max(axis=1, keepdims=True))
    return ClusterView(
        weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300),
        spread,
        sizes_q,
        sizes_k,
        p,
        np.searchsorted(np.cumsum(sizes_q), drawn, side="right"),
        _summed(_softmax(scale * (q[drawn] @ k.T)), np.repeat(np.arange(len(sizes_k)), sizes_k), len(sizes_k)),
        at_q,
        at_k,
        antidiagonal(q, k, sizes_q, sizes_k) if antidiagonals else None,
    )


def antidiagonal(q: np.ndarray, k: np.ndarray, sizes_q: np.ndarray, sizes_k: np.ndarray) -> np.ndarray:
    """Attention between clusters by sums along antidiagonals: every token counts, and few products are computed.

    Tokens of a cluster are taken ``STRIDE`` at a time, queries forwards and keys backwards: one product of two such rows is the sum of an
    antidiagonal of their scores. A softmax over these stands for attention; it is summed over the keys of a cluster, and averaged over
    its queries.
    """
    (rows, owner_q), (columns, owner_k) = _strided(q, sizes_q), _strided(k, sizes_k)
    p = _softmax(rows.reshape(len(rows), -1) @ columns[:, ::-1].reshape(len(columns), -1).T * (scale_of(q.shape[1]) / STRIDE))
    by_key = _summed(p, owner_k, len(sizes_k))
    return _summed(by_key.T, owner_q, len(sizes_q)).T / np.maximum(np.bincount(owner_q, minlength=len(sizes_q)), 1)[:, None]


def _strided(x: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``STRIDE`` tokens of one cluster, the last filled up with zeros, and the cluster of each row."""
    rows = -(-sizes // STRIDE)
    first = np.cumsum(rows * STRIDE) - rows * STRIDE  # where a cluster begins, with what is filled up before it
    place = np.arange(len(x)) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
    padded = np.zeros((int(rows.sum()) * STRIDE, x.shape[1]), x.dtype)
    padded[place] = x
    return padded.reshape(-1, STRIDE, x.shape[1]), np.repeat(np.arange(len(sizes)), rows)


def _moments(x: np.ndarray, blocks: Blocks, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of the tokens of each cluster, and their mean place."""
    if len(blocks.sizes) == 1 and (blocks.sizes == blocks.sizes[0, 0]).all():
        mean, square, at = (pooled(each[None], blocks)[0] for each in (x, x * x, places))
    else:
        sizes = blocks.sizes[0]
        owner, count = np.repeat(np.arange(len(sizes)), sizes), np.maximum(sizes, 1).astype(x.dtype)[:, None]
        mean, square, at = (_summed(each.T, owner, len(sizes)).T / count for each in (x, x * x, places))
    return mean, np.maximum(square - mean**2, 0), at


def _summed(p: np.ndarray, owner: np.ndarray, k: int) -> np.ndarray:
    """Columns summed by owner, (rows, k)."""
    from .clustering import sums_of

    return np.ascontiguousarray(sums_of(p.T, owner, k).T)


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))
