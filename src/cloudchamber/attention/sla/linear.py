"""Linear attention over the marginal key blocks of each query block, in torch, with its gradient written out.

With F = phi(K), h_j = F_j' [V_j, 1] of each key block and H_i the sum of h_j over the marginal blocks of query block i, a query's row is
phi(q) H_i: all but its last entry is the numerator, that plus ``EPSILON`` the denominator. For the gradient, with dN the rows
[dO / den, -rowsum(O * dO) / den]: dphi(Q_i) = dN_i H_i', dH_i = phi(Q_i)' dN_i, dh_j their sum over the query blocks that j is marginal
to, dF_j = [V_j, 1] dh_j', dV_j = F_j dh_j. Nothing is kept but the inputs, the output, the denominators and H.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cloudchamber.attention.model import Blocks
from cloudchamber.core.errors import ChamberError

from .sums import Sums

EPSILON = 1e-5
GUARD = 1e-2  # what falls below this share of the total has lost two digits by subtraction: it is summed again without


class NotFinite(ChamberError, ArithmeticError):
    """A sum of weights overflowed.

    Parameters
    ----------
    message : str
    head : int
        Of all sequences' heads, one after another.
    """

    def __init__(self, message: str, head: int = 0) -> None:
        super().__init__(message)
        self.head = head


class Cut:
    """Tokens of (heads, tokens, dimension) as (heads, blocks, longest, dimension) and back; shorter blocks are filled up with zeros.

    Parameters
    ----------
    sizes : ndarray of int, shape (heads or 1, blocks)
    """

    def __init__(self, sizes: np.ndarray) -> None:
        self.sizes = sizes
        self.tokens = int(sizes[0].sum())
        self.longest = max(int(sizes.max(initial=0)), 1)
        self.is_even = len(sizes) == 1 and bool((sizes[0, :-1] == self.longest).all())  # only the last may be shorter

    def split(self, x: Tensor) -> Tensor:
        """A view where all blocks are full."""
        blocks = self.sizes.shape[1]
        if self.is_even:
            missing = blocks * self.longest - self.tokens
            x = x if not missing else torch.nn.functional.pad(x, (0, 0, 0, missing))
            return x.reshape(len(x), blocks, self.longest, x.shape[2])
        made = x.new_zeros(len(x), blocks * self.longest, x.shape[2])
        return made.scatter(1, self._at(x), x).view(len(x), blocks, self.longest, x.shape[2])

    def join(self, x: Tensor) -> Tensor:
        """The tokens again."""
        x = x.flatten(1, 2)
        if self.is_even:
            return x[:, : self.tokens]
        return x.gather(1, self._at(x).expand(len(x), -1, x.shape[2]))

    def _at(self, x: Tensor) -> Tensor:
        return self._places.to(x.device)[..., None].expand(len(x), -1, x.shape[2])

    @cached_property
    def _places(self) -> Tensor:
        """Where each token stands among the filled-up ones."""
        starts = Blocks(self.sizes).starts()
        shift = np.arange(self.sizes.shape[1]) * self.longest - starts[:, :-1]
        rows = [np.repeat(shift[h], self.sizes[h]) + np.arange(self.tokens) for h in range(len(self.sizes))]
        return torch.from_numpy(np.stack(rows))


@dataclass(frozen=True)
class Plan:
    """What is summed for whom.

    Parameters
    ----------
    q, k : Cut
        One block each where every key is marginal to every query.
    marginal : ndarray of bool, shape (query heads, query blocks, key blocks), or None
        None: all are.
    group : int
        Query heads that share a key head.
    """

    q: Cut
    k: Cut
    marginal: np.ndarray | None
    group: int = 1

    @classmethod
    def of_all(cls, queries: int, keys: int, group: int = 1) -> Plan:
        """Every key for every query."""
        return cls(Cut(np.array([[queries]])), Cut(np.array([[keys]])), None, group)


def linear_attention(phi_q: Tensor, phi_k: Tensor, v: Tensor, plan: Plan) -> Tensor:
    """Output for each query, (query heads, queries, dimension of v); 0 where nothing is marginal.

    Parameters
    ----------
    phi_q : Tensor, shape (query heads, queries, features)
        No entry may be negative, nor one of ``phi_k``.
    phi_k : Tensor, shape (key heads, keys, features)
    v : Tensor, shape (key heads, keys, dimension)
    plan : Plan

    Raises
    ------
    NotFinite
        If a query's sum of weights is not finite.
    """
    kind = torch.promote_types(phi_q.dtype, torch.float32)
    with torch.autocast(v.device.type, enabled=False):  # sums of half precision would be none
        return _Linear.apply(*(each.to(kind) for each in (phi_q, phi_k, v)), plan)  # type: ignore[no-any-return, no-untyped-call]


class _Linear(torch.autograd.Function):
    """Linear attention in torch's graph."""

    @staticmethod
    def forward(ctx: Any, phi_q: Tensor, phi_k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        parts = plan.k.split(phi_k).transpose(2, 3) @ plan.k.split(_with_ones(v))
        rows = plan.q.split(phi_q)
        if plan.marginal is None:
            sums = parts.repeat_interleave(plan.group, 0)
        else:
            sums = _summed(parts, Sums.of(plan.marginal), plan.group)
            lost = _lost(rows, sums, parts, plan)
            if lost is not None:
                sums = _summed(parts, Sums.of(plan.marginal, lost), plan.group)
        made = plan.q.join(rows @ sums)
        weight = made[..., -1:] + EPSILON
        if not bool(torch.isfinite(weight.sum())):  # one number sees what is not; only then is it looked for
            _find(weight)
        out = made[..., :-1] / weight
        ctx.save_for_backward(phi_q, phi_k, v, out, weight, sums)
        ctx.plan = plan
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(d_out.device.type, enabled=False):
            return *_Linear._gradients(d_out, ctx.saved_tensors, ctx.plan), None

    @staticmethod
    def _gradients(d_out: Tensor, saved: tuple[Tensor, ...], plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        phi_q, phi_k, v, out, weight, sums = saved
        d_rows = plan.q.split(torch.cat([d_out, -(out * d_out).sum(2, keepdim=True)], 2).div_(weight))
        d_phi_q = plan.q.join(d_rows @ sums.transpose(2, 3))
        d_sums = plan.q.split(phi_q).transpose(2, 3) @ d_rows
        d_parts = d_sums if plan.marginal is None else _summed(d_sums, _from_keys(d_sums, plan.marginal), 1)
        if plan.group > 1:
            d_parts = d_parts.view(-1, plan.group, *d_parts.shape[1:]).sum(1)
        d_phi_k = plan.k.join(plan.k.split(_with_ones(v)) @ d_parts.transpose(2, 3))
        d_v = plan.k.join(plan.k.split(phi_k) @ d_parts[..., :-1])
        return d_phi_q, d_phi_k, d_v


def _find(weight: Tensor) -> None:
    wrong = (~torch.isfinite(weight)).flatten(1).any(1)
    if bool(wrong.any()):
        head = int(wrong.nonzero()[0])
        raise NotFinite(f"the sum of weights of head {head} is not finite", head)


def _with_ones(v: Tensor) -> Tensor:
    return torch.cat([v, v.new_ones(*v.shape[:2], 1)], 2)


def _summed(parts: Tensor, sums: Sums, group: int) -> Tensor:
    """Sums of the parts of (heads, parts, ...) for every head and row that there is; a group of heads shares parts."""
    heads, rows = sums.from_total.shape
    indptr, indices = sums.rows.indptr, sums.rows.indices
    entry = np.repeat(np.arange(heads) // group * sums.parts, np.diff(indptr[::rows]))  # where the parts of each entry's head begin
    made = torch.nn.functional.embedding_bag(
        torch.from_numpy(entry + indices).to(parts.device),
        parts.reshape(-1, parts.shape[2] * parts.shape[3]),
        torch.from_numpy(indptr.astype(np.int64)).to(parts.device),
        mode="sum",
        include_last_offset=True,
    ).view(heads, rows, *parts.shape[2:])
    if sums.from_total.any():
        chosen = torch.from_numpy(sums.from_total).to(parts.device)[..., None, None]
        total = parts.sum(1, keepdim=True).repeat_interleave(group, 0)
        made = total - made if sums.from_total.all() else torch.where(chosen, total - made, made)
    return made


def _lost(rows: Tensor, sums: Tensor, parts: Tensor, plan: Plan) -> np.ndarray | None:
    """Query blocks with a query whose weight is too small a share of the total to be what is left of it; None: there is none."""
    whole = parts[..., -1].sum(1).repeat_interleave(plan.group, 0)[:, None, :, None]
    is_small = ((rows @ sums[..., -1:]) < GUARD * (rows @ whole))[..., 0].any(2)
    return is_small.cpu().numpy() if bool(is_small.any()) else None


def _from_keys(d_sums: Tensor, marginal: np.ndarray) -> Sums:
    """The sums seen from the keys.

    A query whose weight is tiny has a huge gradient. A key block that would take more of some feature from the total than is left of it by
    far is summed without.
    """
    mask = marginal.transpose(0, 2, 1)
    size = d_sums.abs().amax(3)
    is_in = torch.from_numpy(np.ascontiguousarray(mask)).to(d_sums.device)
    lost = (is_in.to(size.dtype) @ size < GUARD * ((~is_in).to(size.dtype) @ size)).any(2)
    return Sums.of(mask, lost.cpu().numpy())
