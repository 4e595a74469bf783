"""Indices and tensors that the tests of attention share."""

from __future__ import annotations

import numpy as np
import torch

from cloudchamber.attention.kernels import dense
from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.attention.model import BlockIndex, Blocks, changed, scale_of


def ragged(blocks: int, tokens: int, heads: int, rng: np.random.Generator) -> Blocks:
    """Blocks of random sizes, some of them empty."""
    cuts = np.sort(rng.integers(0, tokens + 1, (heads, blocks - 1)), axis=1)
    return Blocks(np.diff(cuts, axis=1, prepend=0, append=tokens).astype(np.int32))


def random_index(
    q_tokens: int, k_tokens: int, *, heads: int = 1, size: int | None = 16, share: float = 0.4, weighted: bool = False, seed: int = 0
) -> BlockIndex:
    """Random blocks of each row, of uniform size or (None) ragged; every query reads something where blocks are uniform."""
    rng = np.random.default_rng(seed)
    if size is None:
        q, k = ragged(7, q_tokens, heads, rng), ragged(9, k_tokens, heads, rng)
    else:
        q, k = Blocks.uniform(q_tokens, size), Blocks.uniform(k_tokens, size)
    mask = rng.random((heads, q.count, k.count)) < share
    largest = np.broadcast_to(np.argmax(k.sizes, axis=1), heads)  # never empty
    mask[np.arange(heads), :, largest] = True
    index = BlockIndex.of(mask, q, k)
    return changed(index, log_weight=rng.normal(0, 1, len(index.rows.indices)).astype(np.float32)) if weighted else index


def tensors(*shape: int, key_heads: int | None = None, keys: int | None = None, scale: float = 1.0, seed: int = 0) -> list[torch.Tensor]:
    """q, k and v of shape (batch, heads, tokens, dimension), float32."""
    batch, heads, tokens, dim = shape
    source = torch.Generator().manual_seed(seed)
    sizes = [(batch, heads, tokens, dim)] + [(batch, key_heads or heads, keys or tokens, dim)] * 2
    return [torch.randn(size, generator=source) * scale for size in sizes]


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, index: BlockIndex) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked attention in float64."""
    flat = [each.double().flatten(0, 1) for each in (q, k, v)]
    out, lse = dense.forward(*flat, Plan.of(index), scale_of(q.shape[3]))
    return out.unflatten(0, q.shape[:2]), lse.unflatten(0, q.shape[:2])
