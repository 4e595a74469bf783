"""Triton kernels, forward and backward, for GPUs; with ``TRITON_INTERPRET=1`` (set before import) the same source runs on CPU tensors.

Each program has one tile of queries (or, for the gradients of keys and values, one tile of keys) and walks the runs its row reads. So
nothing is added atomically, and two runs give the same bits. Products of float32 tensors are full float32, not TF32.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.core.errors import InputError

TAKES_HALF = True
TILE = 64


@triton.jit  # type: ignore[untyped-decorator]
def _rows(base, head, tokens, dim, at, stop, D: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803 # pragma: no cover
    """Rows ``at`` of a head, 0 from ``stop`` on and beyond the dimension."""
    d = tl.arange(0, D)
    mask = (at[:, None] < stop) & (d[None, :] < dim)
    return tl.load(base + (head * tokens + at[:, None]) * dim + d[None, :], mask=mask, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _put(base, head, tokens, dim, at, stop, x, D: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803 # pragma: no cover
    """Write rows, converted to what the tensor holds."""
    d = tl.arange(0, D)
    mask = (at[:, None] < stop) & (d[None, :] < dim)
    tl.store(base + (head * tokens + at[:, None]) * dim + d[None, :], x.to(base.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def] # pragma: no cover
    q, k, v, out, lse, tiles, indptr, start, stop, weight, q_tokens, k_tokens, dim, value, group, scale,
    WEIGHTED: tl.constexpr, TILE: tl.constexpr, D: tl.constexpr, V: tl.constexpr,  # noqa: N803
):  # fmt: skip
    tile = tiles + tl.program_id(0) * 4
    head, row, first, last = tl.load(tile).to(tl.int64), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    i = first + tl.arange(0, TILE)
    queries = _rows(q, head, q_tokens, dim, i, last, D)
    high = tl.full([TILE], -float("inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    sums = tl.zeros([TILE, V], tl.float32)
    for e in range(tl.load(indptr + row), tl.load(indptr + row + 1)):
        end = tl.load(stop + e)
        bias = 0.0
        if WEIGHTED:
            bias = tl.load(weight + e)
        for at in range(tl.load(start + e), end, TILE):
            j = at + tl.arange(0, TILE)
            keys = _rows(k, head // group, k_tokens, dim, j, end, D)
            s = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale + bias
            s = tl.where(j[None, :] < end, s, -float("inf"))
            now = tl.maximum(high, tl.max(s, 1))
            p = tl.exp(s - now[:, None])
            shrink = tl.exp(high - now)
            total = total * shrink + tl.sum(p, 1)
            values = _rows(v, head // group, k_tokens, value, j, end, V)
            sums = sums * shrink[:, None] + tl.dot(p.to(values.dtype), values, input_precision="ieee")
            high = now
    some = total > 0
    safe = tl.where(some, total, 1.0)
    _put(out, head, q_tokens, value, i, last, sums / safe[:, None], V)
    tl.store(lse + head * q_tokens + i, tl.where(some, high + tl.log(safe), -float("inf")), mask=i < last)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_queries(  # type: ignore[no-untyped-def] # pragma: no cover
    q, k, v, d_out, lse, delta, dq, tiles, indptr, start, stop, weight, q_tokens, k_tokens, dim, value, group, scale,
    WEIGHTED: tl.constexpr, TILE: tl.constexpr, D: tl.constexpr, V: tl.constexpr,  # noqa: N803
):  # fmt: skip
    tile = tiles + tl.program_id(0) * 4
    head, row, first, last = tl.load(tile).to(tl.int64), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    i = first + tl.arange(0, TILE)
    queries = _rows(q, head, q_tokens, dim, i, last, D)
    grads = _rows(d_out, head, q_tokens, value, i, last, V)
    total = tl.load(lse + head * q_tokens + i, mask=i < last, other=0.0)
    less = tl.load(delta + head * q_tokens + i, mask=i < last, other=0.0)
    sums = tl.zeros([TILE, D], tl.float32)
    for e in range(tl.load(indptr + row), tl.load(indptr + row + 1)):
        end = tl.load(stop + e)
        bias = 0.0
        if WEIGHTED:
            bias = tl.load(weight + e)
        for at in range(tl.load(start + e), end, TILE):
            j = at + tl.arange(0, TILE)
            keys = _rows(k, head // group, k_tokens, dim, j, end, D)
            values = _rows(v, head // group, k_tokens, value, j, end, V)
            s = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale + bias
            both = (j[None, :] < end) & (i[:, None] < last)
            p = tl.exp(tl.where(both, s - total[:, None], -float("inf")))
            ds = p * (tl.dot(grads, tl.trans(values), input_precision="ieee") - less[:, None])
            sums += tl.dot(ds.to(keys.dtype), keys, input_precision="ieee")
    _put(dq, head, q_tokens, dim, i, last, sums * scale, D)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_keys(  # type: ignore[no-untyped-def] # pragma: no cover
    q, k, v, d_out, lse, delta, dk, dv, tiles, indptr, start, stop, weight, q_tokens, k_tokens, dim, value, group, scale,
    WEIGHTED: tl.constexpr, TILE: tl.constexpr, D: tl.constexpr, V: tl.constexpr,  # noqa: N803
):  # fmt: skip
    tile = tiles + tl.program_id(0) * 4
    head, row, first, last = tl.load(tile).to(tl.int64), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    j = first + tl.arange(0, TILE)
    keys = _rows(k, head // group, k_tokens, dim, j, last, D)
    values = _rows(v, head // group, k_tokens, value, j, last, V)
    sums = tl.zeros([TILE, D], tl.float32)
    sums_v = tl.zeros([TILE, V], tl.float32)
    for e in range(tl.load(indptr + row), tl.load(indptr + row + 1)):
        end = tl.load(stop + e)
        bias = 0.0
        if WEIGHTED:
            bias = tl.load(weight + e)
        for at in range(tl.load(start + e), end, TILE):
            i = at + tl.arange(0, TILE)
            queries = _rows(q, head, q_tokens, dim, i, end, D)
            grads = _rows(d_out, head, q_tokens, value, i, end, V)
            total = tl.load(lse + head * q_tokens + i, mask=i < end, other=0.0)
            less = tl.load(delta + head * q_tokens + i, mask=i < end, other=0.0)
            s = tl.dot(keys, tl.trans(queries), input_precision="ieee") * scale + bias
            both = (j[:, None] < last) & (i[None, :] < end)
            p = tl.exp(tl.where(both, s - total[None, :], -float("inf")))
            sums_v += tl.dot(p.to(grads.dtype), grads, input_precision="ieee")
            ds = p * (tl.dot(values, tl.trans(grads), input_precision="ieee") - less[None, :])
            sums += tl.dot(ds.to(queries.dtype), queries, input_precision="ieee")
    _put(dk, head, k_tokens, dim, j, last, sums * scale, D)
    _put(dv, head, k_tokens, value, j, last, sums_v, V)


def _tiles(plan: Plan, heads: int) -> np.ndarray:
    """Head, row, first and last token of every tile, of every block of every head."""
    starts = np.broadcast_to(plan.q_starts, (heads, plan.q_starts.shape[1]))
    head, block = (each.ravel() for each in np.indices((heads, plan.index.q_blocks)))
    first, last = starts[:, :-1].ravel(), starts[:, 1:].ravel()
    count = -(-(last - first) // TILE)
    of = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    begin = first[of] + within * TILE
    row = (head if plan.index.heads > 1 else 0 * head) * plan.index.q_blocks + block
    return np.stack([head[of], row[of], begin, np.minimum(begin + TILE, last[of])], axis=1).astype(np.int32)


def _launch(kernel: Any, plan: Plan, tensors: tuple[Tensor, ...], q: Tensor, k: Tensor, v: Tensor, scale: float) -> None:
    """Run a kernel over every tile of a plan."""
    if not (q.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        raise InputError("the triton kernel needs tensors on a GPU; on a CPU use backend='native' or 'gather'.")
    tiles = _tiles(plan, len(q))
    if not len(tiles):
        return
    weight = np.zeros(1, np.float32) if plan.weight is None else plan.weight
    arrays = [torch.from_numpy(np.array(each)).to(q.device) for each in (tiles, plan.indptr, plan.start, plan.stop, weight)]
    sizes = (q.shape[1], k.shape[1], q.shape[2], v.shape[2], len(q) // len(k), scale)
    wide = {name: max(16, triton.next_power_of_2(n)) for name, n in (("D", q.shape[2]), ("V", v.shape[2]))}
    kernel[(len(tiles),)](*tensors, *arrays, *sizes, WEIGHTED=plan.weight is not None, TILE=TILE, **wide, num_stages=1)


def forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp; 0 and -inf for a query that reads nothing."""
    out, lse = q.new_empty(*q.shape[:2], v.shape[2]), torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    _launch(_forward, plan, (q, k, v, out, lse), q, k, v, scale)
    return out, lse


def backward(
    q: Tensor, k: Tensor, v: Tensor, lse: Tensor, d_out: Tensor, delta: Tensor, plan: Plan, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients; those of a group's heads are summed afterwards."""
    heads, delta = len(q), delta.contiguous()
    dq = torch.empty_like(q)
    dk = torch.empty(heads, *k.shape[1:], dtype=torch.float32, device=k.device)
    dv = torch.empty(heads, *v.shape[1:], dtype=torch.float32, device=v.device)
    shared = (q, k, v, d_out, lse, delta)
    _launch(_backward_queries, plan, (*shared, dq), q, k, v, scale)
    _launch(_backward_keys, plan.transposed, (*shared, dk, dv), q, k, v, scale)
    dk, dv = (each.view(len(k), heads // len(k), *each.shape[1:]).sum(1) for each in (dk, dv))
    return dq, dk.to(k.dtype), dv.to(v.dtype)
