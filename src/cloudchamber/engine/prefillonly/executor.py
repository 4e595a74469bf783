"""Hybrid prefilling (PrefillOnly): parts that act on each token alone run in row chunks, attention over the whole sequence.

A prompt's peak memory is its MLP's: several times the width of the residual for every token. In chunks only one chunk's worth of it
is alive, and of the keys and values only one layer's, but for the prefix that stays in the pool.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloudchamber.core.errors import InputError
from cloudchamber.engine.attention import PagedView, attend
from cloudchamber.engine.executor import TorchExecutor, _is_single
from cloudchamber.engine.layers import Model
from cloudchamber.engine.seams import Scheduled

CHUNKS = (128, 256, 512, 1024)


class HybridExecutor(TorchExecutor):
    """A torch executor that computes prompts longer than ``chunk_rows`` layer by layer in row chunks.

    "PrefillOnly: An Inference Engine for Prefill-only Workloads in Large Language Model Applications". Answers equal the plain executor's
    up to rounding; matrix products of other row counts round differently.

    Parameters
    ----------
    model : Model
    decode_attention : DecodeAttention or None
    seed : int
    chunk_rows : int or None
        Rows of a chunk; None: the fewest at which a layer's MLP is within 5 % of its best time per row, measured once.

    Raises
    ------
    InputError
        If ``chunk_rows`` is below 1.
    """

    def __init__(self, model: Model, decode_attention: Any = None, *, seed: int = 0, chunk_rows: int | None = None) -> None:
        super().__init__(model, decode_attention, seed=seed)
        if chunk_rows is not None and chunk_rows < 1:
            raise InputError(f"chunk_rows must be at least 1, got {chunk_rows}.")
        self.chunk_rows = chunk_rows or _best_chunk(model)

    def scored_bytes(self, n_tokens: int) -> int:
        """Activations at a prompt's peak: residual, queries, one layer's keys and values, attention's output, one chunk of the rest."""
        c, item = self.model.config, self.model.embedding.element_size()
        whole = c.hidden + 2 * c.heads * c.head_dim + 2 * c.kv_heads * c.head_dim
        turns = len(set(c.ropes)) * c.head_dim * 4 + 16  # of rotary positions, and the tokens themselves
        chunk = 2 * c.hidden + (2 * c.heads + 2 * c.kv_heads) * c.head_dim + 3 * c.intermediate
        rows = min(n_tokens, self.chunk_rows)
        masked = max((min(n_tokens, window + rows) for window in c.windows if window is not None), default=0)  # and as numbers
        masked = masked if self.model.device == "cpu" else n_tokens
        return n_tokens * (whole * item + turns) + rows * (chunk * item + masked * (1 + item))

    def longest_scored(self, free_bytes: int) -> int:
        """Maximum input length: most tokens of a prompt whose activations fit."""
        low, high = 0, self.model.config.max_len
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.scored_bytes(middle) <= free_bytes else (low, middle - 1)
        return low

    def _forward(self, entries: list[Scheduled]) -> tuple[Tensor, int]:
        """Short prompts run together, as many at a time as a chunk has rows, so that they need no more memory than one long prompt."""
        packs: list[list[Scheduled]] = []
        rows = 0  # of the last pack
        for each in entries:
            if not packs or (rows + each.n_new > self.chunk_rows and not _is_single(each)):
                packs.append([])
                rows = 0
            packs[-1].append(each)
            rows += each.n_new
        done = [(self._scored(p[0]), 0) if p[0].n_new > self.chunk_rows else super(HybridExecutor, self)._forward(p) for p in packs]
        parts, singles = zip(*done, strict=True)
        return parts[0] if len(parts) == 1 else torch.cat(parts), sum(singles)

    def _scored(self, each: Scheduled) -> Tensor:
        """Run all layers over one prompt; the residual, (rows, hidden)."""
        model, pool, c, start, end = self.model, self.pool, self.model.config, each.start, each.end
        tokens = each.request.tokens
        assert tokens is not None
        device = model.device
        cuts = [(low, min(low + self.chunk_rows, end)) for low in range(start, end, self.chunk_rows)]
        x = model.embed(torch.tensor(tokens[start:end], device=device))
        turns = model.turns(torch.arange(start, end, device=device))
        q = torch.empty(end - start, c.heads, c.head_dim, dtype=model.dtype, device=device)
        kv = torch.empty(2, end, c.kv_heads, c.head_dim, dtype=model.dtype, device=device)
        rows = pool.rows(self.kv.table(each.request), max(start, min(end, each.kept)))
        paired = torch.from_numpy(np.stack([rows, rows + pool.block])).to(device)
        prefix, kept = paired[:, :start], paired[:, start:]
        nothing = PagedView(pool, np.empty((0, 0), np.int64), np.empty(0, np.int64))
        for i, layer in enumerate(model.layers):
            if start:
                for which in (0, 1):  # without a copy between
                    torch.index_select(pool.keys(i), 0, prefix[which], out=kv[which, :start])
            for low, high in cuts:
                rows_ = slice(low - start, high - start)
                qkv = layer.project(x[rows_], turns[i][rows_])
                q[rows_] = qkv[:, : c.heads]
                kv[:, low:high] = qkv[:, c.heads :].view(high - low, 2, c.kv_heads, c.head_dim).transpose(0, 1)
                del qkv
            if kept.shape[1]:
                pool.keys(i)[kept] = kv[:, start : start + kept.shape[1]]
                self.decode.wrote(i, nothing, kept[0])
            window = self.windows[i]
            if start == 0 and window is None:
                out = attend(q, kv, None)
                for low, high in cuts:
                    layer.finish(x[low:high], out[low:high].reshape(high - low, -1))
                del out
                continue
            for low, high in cuts:  # a mask of all rows at once would be larger than everything else
                first = 0 if window is None else max(0, low - window + 1)
                if window is None and device == "cpu":
                    out = _attend_after(q[low - start : high - start], kv[:, :high])
                else:
                    at, of = torch.arange(low, high, device=device)[:, None], torch.arange(first, high, device=device)
                    seen = of <= at
                    if window is not None:
                        seen &= of > at - window
                    out = attend(q[low - start : high - start], kv[:, first:high], seen)
                    del seen
                layer.finish(x[low - start : high - start], out.reshape(high - low, -1))
        return x


def _attend_after(q: Tensor, kv: Tensor) -> Tensor:
    """Attention of the last rows (rows, heads, size) to all tokens (2, tokens, kv heads, size), causal; (rows, heads, size).

    Without a mask: to the tokens before the rows and, causally, to the rows themselves, weighed by the sums of their exponentials.
    """
    rows, before, heads = len(q), kv.shape[1] - len(q), kv.shape[2]
    grouped = q.view(rows, heads, -1, q.shape[2]).permute(1, 2, 0, 3)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def part(of: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
        k, v = (each.transpose(0, 1).unsqueeze(1).expand(-1, grouped.shape[1], -1, -1) for each in of)
        found: tuple[Tensor, Tensor] = flash(grouped, k, v, 0.0, is_causal)
        return found

    out, total = part(kv[:, before:], True)
    if before:
        earlier, sum_ = part(kv[:, :before], False)
        out = out.lerp_(earlier, (sum_ - total).sigmoid_().to(out.dtype).unsqueeze(-1))
    return out.permute(2, 0, 1, 3).reshape(rows, -1, q.shape[2])


def _best_chunk(model: Model) -> int:
    layer, per_row = model.layers[0], {}
    with torch.inference_mode():
        for rows in CHUNKS:
            x = torch.zeros(rows, model.config.hidden, dtype=model.dtype, device=model.device)
            attended = torch.zeros(rows, model.config.heads * model.config.head_dim, dtype=model.dtype, device=model.device)
            times = []
            for _ in range(4):
                began = time.perf_counter()
                layer.finish(x, attended)
                times.append(time.perf_counter() - began)
            per_row[rows] = min(times) / rows
    return next(rows for rows in CHUNKS if per_row[rows] <= 1.05 * min(per_row.values()))
