"""Torch's flex_attention with a block mask: a peer to compare with. Uniform blocks, no gradients, and it compiles for each shape."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from cloudchamber.attention.kernels import gather
from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.core.errors import InputError


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _size(sizes: Any, name: str) -> int:
    """The one size of all blocks but the last."""
    size = int(sizes[0, 0])
    if not ((sizes[:, :-1] == size).all() and (sizes[:, -1] > 0).all() and (sizes[:, -1] <= size).all()):
        raise InputError(f"the flex kernel takes {name} blocks of one size, got {sizes[0][:8].tolist()}; use backend='native' or 'gather'.")
    return size


def attend(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor | None]:
    """The output, 0 for a query that reads nothing, and the log-sum-exp where torch returns it: on a GPU."""
    from torch.nn.attention.flex_attention import AuxRequest, BlockMask

    index = plan.index
    if index.log_weight is not None:
        raise InputError("the flex kernel knows no weights; use backend='native' or 'gather'.")
    q_size, k_size = _size(index.q_sizes, "query"), _size(index.k_sizes, "key")
    mask = torch.from_numpy(index.rows.mask(index.k_blocks)).view(1, index.heads, index.q_blocks, index.k_blocks).to(q.device)
    count = mask.sum(-1, dtype=torch.int32)
    order = torch.argsort(mask.int(), dim=-1, descending=True, stable=True).int()
    q_tokens, k_tokens = q.shape[1], k.shape[1]

    def inside(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i < q_tokens) & (j < k_tokens)

    blocks = BlockMask.from_kv_blocks(count, order, BLOCK_SIZE=(q_size, k_size), mask_mod=inside, seq_lengths=(q_tokens, k_tokens))
    options = {"block_mask": blocks, "scale": scale, "enable_gqa": len(q) != len(k)}
    empty = ~mask.any(-1).repeat_interleave(q_size, -1)[0, :, :q_tokens]  # what flex writes there differs between its backends
    if not q.is_cuda:
        return _compiled()(q[None], k[None], v[None], **options)[0].masked_fill(empty[..., None], 0.0), None
    out, aux = _compiled()(q[None], k[None], v[None], **options, return_aux=AuxRequest(lse=True))
    return out[0].masked_fill(empty[..., None], 0.0), aux.lse[0].masked_fill(empty, -torch.inf)


def forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp; the latter by other means where torch does not return it."""
    out, lse = attend(q, k, v, plan, scale)
    return out, gather.log_sums(q, k, plan, scale) if lse is None else lse
