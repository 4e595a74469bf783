"""What a step reads: paged KV, row indices built once for all layers, attention of decodes and of prompts.

A page is ``[layers, 2, block, kv heads, head dimension]`` in one flat tensor. The token at offset o of page p has row
``p · layers · 2 · block + o``; each layer's keys and values are the same rows of a shifted view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .seams import Scheduled

BUCKETS = 4
WORTH = 128  # rows of padding that cost as much as another bucket


class KVPool:
    """The bytes of paged KV: one flat tensor, and each layer's views of it."""

    def __init__(self, pages: int, page_shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
        self.layers, _, self.block, self.kv_heads, self.head_dim = page_shape
        self.pages = pages
        elements = pages * int(np.prod(page_shape))
        if device == "cpu":  # NumPy's zeros cost neither time nor memory before they are touched
            self.flat = torch.from_numpy(np.zeros(elements * dtype.itemsize, np.uint8)).view(dtype)
        else:
            self.flat = torch.zeros(elements, dtype=dtype, device=device)
        self.stride = self.layers * 2 * self.block  # rows from one page to the next
        self._rows = self.flat.view(-1, self.kv_heads, self.head_dim)

    def keys(self, layer: int) -> Tensor:
        """Rows of a layer's keys, (rows, kv heads, head dimension); its values lie ``block`` rows further."""
        return self._rows[2 * layer * self.block :]

    def values(self, layer: int) -> Tensor:
        """Rows of a layer's values."""
        return self._rows[(2 * layer + 1) * self.block :]

    def rows(self, table: np.ndarray, n_tokens: int) -> np.ndarray:
        """Rows of the first tokens of a sequence, or of several (last axis: pages)."""
        found = table[..., None].astype(np.int64) * self.stride + np.arange(self.block)
        return found.reshape(*table.shape[:-1], -1)[..., :n_tokens]


@dataclass(frozen=True)
class PagedView:
    """The sequences that decode in this step, and where their KV lies.

    Parameters
    ----------
    pool : KVPool
    pages : ndarray of int64, shape (sequences, most pages)
        Page ids; beyond a sequence's own, its first again.
    lengths : ndarray of int64, shape (sequences,)
        Tokens of each sequence, the new one included.
    """

    pool: KVPool
    pages: np.ndarray
    lengths: np.ndarray


class DecodeAttention(Protocol):
    """What one decode step reads. Metadata may lie beside the pages, indexed by page id."""

    def wrote(self, layer: int, kv: PagedView, rows: Tensor) -> None:
        """Keys and values of new rows are in a layer's pages, of prompts and decodes alike: keep page bounds, sketches."""
        ...

    def __call__(self, layer: int, q: Tensor, kv: PagedView) -> Tensor:
        """Attend; ``q`` and the result have shape (sequences, heads, head dimension)."""
        ...


@dataclass(frozen=True)
class _Bucket:
    """Sequences of about the same length: which, the rows of their keys and values, and which of these they may read."""

    members: Tensor | None  # None: all
    count: int
    rows: Tensor  # (2 · sequences · longest,)
    mask: Tensor | None  # (sequences, 1, 1, longest), added to the scores
    longest: int
    read: int  # rows that are no padding


class BucketedSDPA:
    """The default: sequences of about equal length are gathered and attended to together, a group's heads as rows of one query."""

    def __init__(self, windows: Sequence[int | None]) -> None:
        self.windows = tuple(windows)
        self.kv_bytes = 0
        self._plans: dict[int | None, list[_Bucket]] = {}

    def begin(self, kv: PagedView) -> None:
        """Build the indices of a step."""
        self._plans = {window: self._buckets(kv, window) for window in set(self.windows)}
        row_bytes = kv.pool.kv_heads * kv.pool.head_dim * kv.pool.flat.element_size()
        self.kv_bytes = sum(2 * row_bytes * bucket.read for window in self.windows for bucket in self._plans[window])

    def _buckets(self, kv: PagedView, window: int | None) -> list[_Bucket]:
        lengths = kv.lengths if window is None else np.minimum(kv.lengths, window)
        order = np.argsort(lengths, kind="stable")
        found = []
        for low, high in _cuts(lengths[order]):
            members = np.sort(order[low:high])
            size, last = lengths[members], kv.lengths[members]
            longest = int(size.max())
            at = (last - size)[:, None] + np.arange(longest)  # positions
            at = np.minimum(at, last[:, None] - 1)  # padding reads the own last token: always written, hence finite
            block = kv.pool.block
            rows = kv.pages[members[:, None], at // block] * kv.pool.stride + at % block
            mask = None
            if int(size.min()) < longest:
                mask = torch.from_numpy(np.where(np.arange(longest) < size[:, None], 0.0, -np.inf).astype(np.float32))[:, None, None]
                mask = mask.to(kv.pool.flat)
            where = None if len(members) == len(lengths) else torch.from_numpy(members).to(kv.pool.flat.device)
            index = torch.from_numpy(np.stack([rows, rows + block]).reshape(-1)).to(kv.pool.flat.device)
            found.append(_Bucket(where, len(members), index, mask, longest, int(size.sum())))
        return found

    def wrote(self, layer: int, kv: PagedView, rows: Tensor) -> None:
        """Nothing is kept."""

    def __call__(self, layer: int, q: Tensor, kv: PagedView) -> Tensor:
        """Attend to all tokens of each sequence, or to those in the layer's window."""
        heads, size = kv.pool.kv_heads, kv.pool.head_dim
        keys, buckets = kv.pool.keys(layer), self._plans[self.windows[layer]]
        out = torch.empty_like(q) if len(buckets) > 1 else q
        for bucket in buckets:
            k, v = keys.index_select(0, bucket.rows).view(2, -1, bucket.longest, heads, size).transpose(2, 3).unbind()
            chosen = q if bucket.members is None else q.index_select(0, bucket.members)
            grouped = chosen.view(bucket.count, heads, -1, size)
            found = scaled_dot_product_attention(grouped, k, v, attn_mask=bucket.mask).view(chosen.shape)
            if bucket.members is None:
                return found
            out.index_copy_(0, bucket.members, found)
        return out


def _cuts(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Cut ascending lengths where most padding is saved, into at most ``BUCKETS`` ranges, as long as a cut is worth it."""
    cuts = [(0, len(lengths))] if len(lengths) else []
    while len(cuts) < BUCKETS:
        best, where = 0.0, None
        for low, high in cuts:
            inner = np.arange(low + 1, high)
            saved = (inner - low) * (lengths[high - 1] - lengths[inner - 1])
            if len(inner) and saved.max() > best:
                best, where = float(saved.max()), (low, int(inner[saved.argmax()]), high)
        if where is None or best < WORTH:
            break
        low, middle, high = where
        cuts.remove((low, high))
        cuts += [(low, middle), (middle, high)]
    return sorted(cuts)


def attend(q: Tensor, kv: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of (rows, heads, size) to (2, tokens, kv heads, size), causal without a mask; (rows, heads, size)."""
    heads = kv.shape[2]  # as the batch, so that a group's heads share keys without a copy
    k, v = (each.transpose(0, 1).unsqueeze(1).expand(-1, q.shape[1] // heads, -1, -1) for each in kv)
    q = q.view(len(q), heads, -1, q.shape[2]).permute(1, 2, 0, 3)
    return (
        scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        .permute(2, 0, 1, 3)
        .reshape(q.shape[2], -1, q.shape[3])
    )


@dataclass(frozen=True)
class Prompt:
    """A run of a sequence's tokens in the step's rows, and the rows of the prefix before them in the pool."""

    first: int
    n_new: int
    start: int
    prefix: dict[int | None, Tensor]  # window -> rows of keys and values, (2 · prefix read,)
    masks: dict[int | None, Tensor | None]

    @classmethod
    def of(cls, each: Scheduled, first: int, table: np.ndarray, pool: KVPool, windows: set[int | None]) -> Prompt:
        """Index what a chunk reads."""
        prefix: dict[int | None, Tensor] = {}
        masks: dict[int | None, Tensor | None] = {}
        rows = pool.rows(table, each.start)
        for window in windows:
            low = 0 if window is None else max(0, each.start - window + 1)
            chosen = rows[low:]
            prefix[window] = torch.from_numpy(np.concatenate([chosen, chosen + pool.block])).to(pool.flat.device)
            masks[window] = None
            if each.start or (window is not None and each.n_new > window):
                behind = np.arange(each.start, each.end)[:, None] - np.arange(low, each.end)
                seen = (behind >= 0) if window is None else (behind >= 0) & (behind < window)
                masks[window] = torch.from_numpy(seen).to(pool.flat.device)
        return cls(first, each.n_new, each.start, prefix, masks)

    def attend(self, layer: int, window: int | None, qkv: Tensor, heads: int, pool: KVPool) -> Tensor:
        """Attend from a run of rows of ``qkv`` (rows, heads + 2 · kv heads, head dimension) to its prefix and itself; (rows, heads, …)."""
        qkv = qkv[self.first : self.first + self.n_new]
        kv = qkv[:, heads:].view(self.n_new, 2, pool.kv_heads, -1).transpose(0, 1)  # (2, rows, kv heads, head dimension)
        prefix = self.prefix[window]
        if len(prefix):
            kv = torch.cat([pool.keys(layer).index_select(0, prefix).view(2, -1, pool.kv_heads, pool.head_dim), kv], 1)
        return attend(qkv[:, :heads], kv, self.masks[window])
