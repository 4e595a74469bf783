"""Masked attention over all pairs, in float64 on request: what every other kernel is tested against. It saves nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.kernels.plan import Plan


def bias_of(plan: Plan, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What is added to every logit, shape (heads or 1, queries, keys): log weight where a pair is read, -inf elsewhere."""
    index = plan.index
    q_starts, tokens = plan.q_starts, int(index.k_sizes[0].sum())
    bias = np.full((index.heads, int(q_starts[0, -1]), tokens), -np.inf)
    for head in range(index.heads):
        for block in range(index.q_blocks):
            row = plan.row(head, block)
            start, stop = plan.queries(head, block)
            weight = plan.bias(row)
            bias[head][start:stop, plan.keys(row)] = 0.0 if weight is None else weight
    return torch.from_numpy(bias).to(device, dtype)


def forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float, *, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of masked attention, differentiable by torch itself.

    Parameters
    ----------
    dtype : torch.dtype, optional
        What is computed in, such as ``torch.float64``; by default the tensors' own.
    """
    kind = dtype or q.dtype
    group = len(q) // len(k)
    wide_q, wide_k, wide_v = q.to(kind), k.to(kind).repeat_interleave(group, 0), v.to(kind).repeat_interleave(group, 0)
    logits = wide_q @ wide_k.transpose(1, 2) * scale + bias_of(plan, q.device, kind)
    empty = torch.isneginf(logits).all(-1, keepdim=True)
    # a row of -inf alone has no softmax: it is computed on zeros and then thrown away, so that no gradient is NaN
    safe = logits.masked_fill(empty, 0.0)
    out = torch.softmax(safe, -1).masked_fill(empty, 0.0) @ wide_v
    lse = torch.logsumexp(safe, -1).masked_fill(empty[..., 0], -torch.inf)
    return out.to(q.dtype), lse.to(torch.promote_types(q.dtype, torch.float32))
