"""Verified attention in the engine: what its decodes read instead of everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cloudchamber.core.errors import InputError
from cloudchamber.engine.attention import KVPool, PagedView

from .decode import Cache, Certificate, VAttention, dense
from .scorers import QuestPages, Sketch, page_sketch


class VAttentionDecode:
    """The engine's :class:`~cloudchamber.engine.attention.DecodeAttention` by :class:`VAttention`, one sequence after another.

    With ``QuestPages`` the bounds of each page of the pool are kept as it is written (a page of the scorer is then the pool's, whatever it
    says); other scorers sketch all keys anew in every step. A sample is named by the seed, layer, head and the sequence's length, so that
    neither the batch nor its order changes a token. Layers with a window read all of it. A chunk of a prompt that is one token long is a
    decode to the engine, and reads sparsely like one.

    Parameters
    ----------
    attention : VAttention
    windows : sequence of int or None
        Of each layer: ``model.config.windows``.
    seed : int, default 0

    Attributes
    ----------
    kv_bytes : int
        Of keys and values that the last step read, each row once for all heads that share it.
    sketch_bytes : int
        Of what the scorer read besides.
    certificates : list of Certificate
        Of the last step, sequence by sequence within each layer.
    """

    def __init__(self, attention: VAttention, windows: Sequence[int | None], *, seed: int = 0) -> None:
        self.attention, self.windows, self.seed = attention, tuple(windows), seed
        self.kv_bytes = self.sketch_bytes = 0
        self.certificates: list[Certificate] = []
        self._bounds: np.ndarray | None = None  # (layers, least and greatest, pages, key heads, head dimension)

    def begin(self, kv: PagedView) -> None:
        """Count anew."""
        self.kv_bytes = self.sketch_bytes = 0
        self.certificates = []

    def wrote(self, layer: int, kv: PagedView, rows: Tensor) -> None:
        """Widen the bounds of the pages that hold new rows; a page that is written from its start belongs to new tokens."""
        if not len(rows) or not isinstance(self.attention.scorer, QuestPages):
            return
        pool = kv.pool
        _check(pool)
        if self._bounds is None:
            self._bounds = np.zeros((pool.layers, 2, pool.pages, pool.kv_heads, pool.head_dim), np.float32)
        ordered = torch.sort(rows).values
        keys = pool.keys(layer).index_select(0, ordered).numpy()
        page, offset = np.divmod(ordered.numpy(), pool.stride)
        starts = np.flatnonzero(np.append(True, page[1:] != page[:-1]))
        is_old = (offset[starts] > 0)[:, None, None]
        for bound, reduce in zip(self._bounds[layer], (np.minimum, np.maximum), strict=True):
            new = reduce.reduceat(keys, starts, axis=0)
            bound[page[starts]] = np.where(is_old, reduce(bound[page[starts]], new), new)

    def __call__(self, layer: int, q: Tensor, kv: PagedView) -> Tensor:
        """Attend to the rows that were chosen, and no other."""
        pool = kv.pool
        _check(pool)
        keys, values = (each.numpy().reshape(-1, pool.head_dim) for each in (pool.keys(layer), pool.values(layer)))
        row_bytes = 2 * pool.head_dim * 4
        out = np.empty(tuple(q.shape), np.float32)
        for i, n in enumerate(kv.lengths.tolist()):
            rows = pool.rows(kv.pages[i], n)
            window = self.windows[layer]
            if window is not None:
                rows = rows[-window:]
            cache = Cache(keys, values, rows, pool.kv_heads, pool.kv_heads, 1)
            if window is not None:
                out[i] = dense(q[i].numpy(), cache)
                self.kv_bytes += row_bytes * len(rows) * pool.kv_heads
                continue
            sketches = self._sketches(layer, cache, kv.pages[i, : -(-n // pool.block)], pool.block)
            done = self.attention(q[i].numpy(), cache, sketches, layer=layer, step=n, seed=self.seed)
            out[i] = done.out
            self.kv_bytes += row_bytes * int(done.read.sum())
            self.sketch_bytes += sum(each.size_bytes for each in sketches)
            self.certificates += done.certificates
        return torch.from_numpy(out)

    def _sketches(self, layer: int, cache: Cache, pages: np.ndarray, block: int) -> list[Sketch]:
        if not isinstance(self.attention.scorer, QuestPages) or self._bounds is None:
            every = np.arange(len(cache.rows))
            return [self.attention.scorer.sketch(cache.keys[cache.rows_of(every, g)]) for g in range(cache.heads)]
        low, high = self._bounds[layer][:, pages]
        return [page_sketch(low[:, g], high[:, g], block) for g in range(cache.heads)]


def _check(pool: KVPool) -> None:
    if pool.flat.dtype != torch.float32 or pool.flat.device.type != "cpu":
        raise InputError(f"VAttentionDecode reads float32 pools on the CPU, this one is {pool.flat.dtype} on {pool.flat.device}.")
