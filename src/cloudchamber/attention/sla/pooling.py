"""What routers are shown, from queries and keys."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import Blocks, scale_of

from .model import RouteView


def views(q: np.ndarray, k: np.ndarray, q_blocks: Blocks, k_blocks: Blocks) -> tuple[RouteView, ...]:
    """One view for each head.

    Parameters
    ----------
    q, k : ndarray, shape (heads, queries or keys, head dimension)
        In the order of the blocks.
    q_blocks, k_blocks : Blocks
    """
    k = k - k.mean(axis=1, keepdims=True)  # of all keys: routing only
    (mean_q, alike_q), (mean_k, alike_k) = _summary(q, q_blocks), _summary(k, k_blocks)
    scores = (mean_q * scale_of(q.shape[2])) @ mean_k.transpose(0, 2, 1)
    sizes = [np.broadcast_to(each.sizes, (len(q), each.count)).astype(np.int64) for each in (q_blocks, k_blocks)]
    return tuple(RouteView(scores[h], alike_q[h], alike_k[h], sizes[0][h], sizes[1][h]) for h in range(len(q)))


def _summary(x: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each block, (heads, blocks, dimension), and the mean cosine of its pairs of tokens, (heads, blocks)."""
    sizes = np.broadcast_to(blocks.sizes, (len(x), blocks.count))
    length = np.sqrt(np.einsum("hld,hld->hl", x, x))
    weights = np.stack([np.ones_like(length), 1 / np.maximum(length, np.finfo(x.dtype).tiny)], axis=1)
    sums = _sums(x, weights, blocks)
    mean = sums[:, :, 0] / np.maximum(sizes, 1)[..., None].astype(x.dtype)
    towards = sums[:, :, 1]
    pairs = np.maximum(sizes * (sizes - 1.0), 1.0)
    alike = (np.einsum("hbd,hbd->hb", towards, towards) - sizes) / pairs
    return mean, np.where(sizes > 1, np.clip(alike, -1.0, 1.0), 1.0)


def _sums(x: np.ndarray, weights: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Weighted sums over the tokens of each block, for each row of weights: (heads, blocks, rows of weights, dimension)."""
    found = np.zeros((len(x), blocks.count, weights.shape[1], x.shape[2]), x.dtype)
    size = int(blocks.sizes[0, 0]) if blocks.count else 0
    whole = blocks.count - 1 if len(blocks.sizes) == 1 and (blocks.sizes[0, :-1] == size).all() else 0
    if whole > 0 and size:  # equal blocks but for the last: one product
        rows = weights[:, :, : whole * size].reshape(len(x), -1, whole, size).transpose(0, 2, 1, 3)
        found[:, :whole] = rows @ x[:, : whole * size].reshape(len(x), whole, size, -1)
    starts = blocks.starts()
    for h in range(len(x)):
        at = starts[h % len(starts)]
        for block in range(whole, blocks.count):
            part = slice(int(at[block]), int(at[block + 1]))
            found[h, block] = weights[h, :, part] @ x[h, part]
    return found
