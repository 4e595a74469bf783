"""Pure torch: for each query block the keys it reads are gathered, then one product, a softmax, and another product.

Works wherever torch does, on every device and in float64. Nothing larger than one query block by its keys exists at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cloudchamber.attention.kernels.plan import Plan


@dataclass(frozen=True)
class _Step:
    """One query block of one head, and what it reads."""

    head: int
    queries: slice
    keys: slice | Tensor
    bias: Tensor | None


def _steps(plan: Plan, heads: int, like: Tensor) -> Iterator[_Step]:
    """Every query block with keys to read; what all heads share is made once."""
    shared = plan.index.heads == 1
    for block in range(plan.index.q_blocks):
        made: tuple[slice | Tensor, Tensor | None] | None = None
        for head in range(heads):
            row = plan.row(head, block)
            start, stop = plan.queries(head, block)
            if start == stop or plan.indptr[row] == plan.indptr[row + 1]:
                continue
            if made is None or not shared:
                keys, bias = plan.keys(row), plan.bias(row)
                made = (
                    keys if isinstance(keys, slice) else torch.from_numpy(keys).to(like.device),
                    None if bias is None else torch.from_numpy(bias).to(like.device, like.dtype),
                )
            yield _Step(head, slice(start, stop), *made)


class _Scratch:
    """Memory that every step uses again: fresh pages for each would cost as much as the products."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._rooms: dict[str, Tensor] = {}

    def room(self, name: str, rows: int, columns: int) -> Tensor:
        """An uninitialised matrix, valid until the name is asked for again."""
        found = self._rooms.get(name)
        if found is None or found.numel() < rows * columns:
            found = self._rooms[name] = self._like.new_empty(rows * columns)
        return found[: rows * columns].view(rows, columns)

    def take(self, name: str, x: Tensor, keys: slice | Tensor) -> Tensor:
        """Rows of x; themselves where they are neighbours."""
        if isinstance(keys, slice):
            return x[keys]
        return torch.index_select(x, 0, keys, out=self.room(name, len(keys), x.shape[1]))

    def product(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """The matrix product."""
        return torch.mm(a, b, out=self.room(name, a.shape[0], b.shape[1]))

    def logits(self, q: Tensor, k: Tensor, step: _Step, scale: float) -> Tensor:
        """Scaled products and log weights, queries by keys."""
        found = self.product("logits", q, k.T).mul_(scale)
        return found if step.bias is None else found.add_(step.bias)


def _add(total: Tensor, keys: slice | Tensor, part: Tensor) -> None:
    if isinstance(keys, slice):
        total[keys] += part
    else:
        total.index_add_(0, keys, part)


def forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp; 0 and -inf for a query that reads nothing."""
    group, scratch = len(q) // len(k), _Scratch(q)
    out = q.new_zeros(*q.shape[:2], v.shape[2])
    lse = q.new_full(q.shape[:2], -torch.inf)
    fused = _fused() if q.device.type == "cpu" and q.shape[2] == v.shape[2] else None
    for step in _steps(plan, len(q), q):
        head, rows, each = step.head, step.queries, step.head // group
        keys, values = scratch.take("keys", k[each], step.keys), scratch.take("values", v[each], step.keys)
        if fused is not None:
            bias = None if step.bias is None else step.bias.expand(rows.stop - rows.start, -1)
            made = fused(q[head, rows][None, None], keys[None, None], values[None, None], 0.0, False, attn_mask=bias, scale=scale)
            out[head, rows], lse[head, rows] = made[0][0, 0], made[1][0, 0]
            continue
        logits = scratch.logits(q[head, rows], keys, step, scale)
        top = logits.amax(1, keepdim=True)
        logits.sub_(top).exp_()
        total = logits.sum(1, keepdim=True)
        torch.mm(logits, values, out=out[head, rows]).div_(total)
        lse[head, rows] = top.add_(total.log_())[:, 0]
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
        head, rows, each = step.head, step.queries, step.head // group
        keys, values = scratch.take("keys", k[each], step.keys), scratch.take("values", v[each], step.keys)
        p = scratch.logits(q[head, rows], keys, step, scale).sub_(lse[head, rows, None]).exp_()
        _add(dv[each], step.keys, scratch.product("part", p.T, d_out[head, rows]))
        ds = scratch.product("ds", d_out[head, rows], values.T).sub_(delta[head, rows, None]).mul_(p).mul_(scale)
        torch.mm(ds, keys, out=dq[head, rows])
        _add(dk[each], step.keys, scratch.product("part", ds.T, q[head, rows]))
    return dq, dk, dv


def key_mass(q: Tensor, k: Tensor, lse: Tensor, plan: Plan, scale: float) -> Tensor:
    """Probability that each key receives from all queries, shape (heads, keys)."""
    group, scratch = len(q) // len(k), _Scratch(q)
    mass = q.new_zeros(len(q), k.shape[1])
    for step in _steps(plan, len(q), q):
        keys = scratch.take("keys", k[step.head // group], step.keys)
        logits = scratch.logits(q[step.head, step.queries], keys, step, scale)
        _add(mass[step.head], step.keys, logits.sub_(lse[step.head, step.queries, None]).exp_().sum(0))
    return mass
