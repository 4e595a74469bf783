"""Pure torch: the keys that query blocks read are gathered, then one product, a softmax, and another product.

Works wherever torch does, on every device and in float64. Neighbouring query blocks that read equally many keys go together, as many as
stay in a processor's cache: nothing larger exists at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.kernels.plan import Plan

TOGETHER = 4096  # keys gathered at a time, if one query block does not read more


@dataclass(frozen=True)
class _Step:
    """Some query blocks of one head, of ``size`` queries and ``read`` keys each."""

    head: int
    queries: slice
    size: int
    read: int
    keys: slice | Tensor
    bias: Tensor | None

    def split(self, x: Tensor) -> Tensor:
        """The queries' rows, block by block."""
        rows = x[self.head, self.queries]
        return rows.view(-1, self.size, *rows.shape[1:])


def _groups(sizes: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """First block and number of blocks that go together; blocks without queries or keys are left out."""
    block = 0
    while block < len(sizes):
        size, read = sizes[block], lengths[block]
        count, most = 1, max(1, TOGETHER // max(int(read), 1))
        while count < most and block + count < len(sizes) and sizes[block + count] == size and lengths[block + count] == read:
            count += 1
        if size and read:
            yield block, count
        block += count


def _steps(plan: Plan, heads: int, like: Tensor) -> Iterator[_Step]:
    """Everything there is to compute; what all heads share is made once."""
    blocks, shared = plan.index.q_blocks, plan.index.heads == 1 and len(plan.q_starts) == 1
    for first in range(1 if shared else heads):
        row = plan.row(first, 0)
        starts = plan.q_starts[first if len(plan.q_starts) > 1 else 0]
        for block, count in _groups(np.diff(starts), plan.lengths[row : row + blocks]):
            keys, bias = plan.keys(row + block, count), plan.bias(row + block, count)
            size, read = int(starts[block + 1] - starts[block]), int(plan.lengths[row + block])
            where = keys if isinstance(keys, slice) else torch.from_numpy(keys).to(like.device)
            more = None if bias is None else torch.from_numpy(bias).to(like.device, like.dtype).view(count, 1, read)
            for head in range(heads) if shared else (first,):
                yield _Step(head, slice(int(starts[block]), int(starts[block + count])), size, read, where, more)


class _Scratch:
    """Memory that every step uses again: fresh pages for each would cost as much as the products."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._rooms: dict[str, Tensor] = {}

    def room(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor, valid until the name is asked for again."""
        found, size = self._rooms.get(name), int(np.prod(shape))
        if found is None or found.numel() < size:
            found = self._rooms[name] = self._like.new_empty(size)
        return found[:size].view(shape)

    def take(self, name: str, x: Tensor, step: _Step) -> Tensor:
        """Rows that each block reads, shape (blocks, read, dimension)."""
        if isinstance(step.keys, slice):
            return x[step.keys][None]
        return torch.index_select(x, 0, step.keys, out=self.room(name, len(step.keys), x.shape[1])).view(-1, step.read, x.shape[1])

    def product(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """The matrix product of each block."""
        return torch.bmm(a, b, out=self.room(name, a.shape[0], a.shape[1], b.shape[2]))

    def logits(self, q: Tensor, k: Tensor, step: _Step, scale: float) -> Tensor:
        """Scaled products and log weights, queries by keys."""
        found = self.product("logits", q, k.transpose(1, 2)).mul_(scale)
        return found if step.bias is None else found.add_(step.bias)


def _add(total: Tensor, keys: slice | Tensor, part: Tensor) -> None:
    if isinstance(keys, slice):
        total[keys] += part[0]
    else:
        total.index_add_(0, keys, part.flatten(0, 1))


def forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp; 0 and -inf for a query that reads nothing."""
    group, scratch = len(q) // len(k), _Scratch(q)
    out = q.new_zeros(*q.shape[:2], v.shape[2])
    lse = q.new_full(q.shape[:2], -torch.inf)
    fused = _fused() if q.device.type == "cpu" and q.shape[2] == v.shape[2] else None
    for step in _steps(plan, len(q), q):
        each = step.head // group
        rows, keys, values = step.split(q), scratch.take("keys", k[each], step), scratch.take("values", v[each], step)
        if fused is not None:
            bias = None if step.bias is None else step.bias[:, None].expand(-1, 1, step.size, -1)
            made, total = fused(rows[:, None], keys[:, None], values[:, None], 0.0, False, attn_mask=bias, scale=scale)
            step.split(out).copy_(made[:, 0])
            step.split(lse).copy_(total[:, 0])
            continue
        logits = scratch.logits(rows, keys, step, scale)
        top = logits.amax(2, keepdim=True)
        logits.sub_(top).exp_()
        total = logits.sum(2, keepdim=True)
        torch.bmm(logits, values, out=step.split(out)).div_(total)
        step.split(lse).copy_(top.add_(total.log_())[..., 0])
    return out, lse


def _fused() -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Torch's fused attention on the CPU, which also returns the log-sum-exp: a third faster than the steps one by one; None without it."""
    return getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def backward(
    q: Tensor, k: Tensor, v: Tensor, lse: Tensor, d_out: Tensor, delta: Tensor, plan: Plan, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v: every probability is computed again from ``lse``.

    Parameters
    ----------
    delta : Tensor
        Of each query, out . d_out - d_lse.
    """
    group, scratch = len(q) // len(k), _Scratch(q)
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for step in _steps(plan, len(q), q):
        each, rows, d_rows = step.head // group, step.split(q), step.split(d_out)
        keys, values = scratch.take("keys", k[each], step), scratch.take("values", v[each], step)
        p = scratch.logits(rows, keys, step, scale).sub_(step.split(lse)[..., None]).exp_()
        _add(dv[each], step.keys, scratch.product("part", p.transpose(1, 2), d_rows))
        ds = scratch.product("ds", d_rows, values.transpose(1, 2)).sub_(step.split(delta)[..., None]).mul_(p).mul_(scale)
        torch.bmm(ds, keys, out=step.split(dq))
        _add(dk[each], step.keys, scratch.product("part", ds.transpose(1, 2), rows))
    return dq, dk, dv


def log_sums(q: Tensor, k: Tensor, plan: Plan, scale: float) -> Tensor:
    """The log-sum-exp alone, -inf for a query that reads nothing."""
    group, scratch = len(q) // len(k), _Scratch(q)
    lse = q.new_full(q.shape[:2], -torch.inf)
    for step in _steps(plan, len(q), q):
        keys = scratch.take("keys", k[step.head // group], step)
        step.split(lse).copy_(torch.logsumexp(scratch.logits(step.split(q), keys, step, scale), 2))
    return lse


def key_mass(q: Tensor, k: Tensor, lse: Tensor, plan: Plan, scale: float) -> Tensor:
    """Probability that each key receives from all queries, shape (heads, keys)."""
    group, scratch = len(q) // len(k), _Scratch(q)
    mass = q.new_zeros(len(q), k.shape[1])
    for step in _steps(plan, len(q), q):
        keys = scratch.take("keys", k[step.head // group], step)
        p = scratch.logits(step.split(q), keys, step, scale).sub_(step.split(lse)[..., None]).exp_().sum(1)
        _add(mass[step.head], step.keys, p)
    return mass
