"""VSA as a module: the router, the coarse branch that teaches it, and the schedule of sparsity for adapting a model."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.layouts import TileLayout
from cloudchamber.attention.model import AttentionSpec, BlockIndex, Scene, Selection, scale_of, text_blocks
from cloudchamber.attention.sparse import SparseAttention
from cloudchamber.core.errors import InputError

from .model import TileSpec, TileView
from .policies.coarse_top_k import CoarseTopK


class TileSelector:
    """A :class:`TileSelect` as the selector of a :class:`SparseAttention`: it is asked head by head.

    Parameters
    ----------
    policy : TileSelect
    """

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self._rng = np.random.default_rng(0)

    def reset(self, spec: AttentionSpec, rng: np.random.Generator) -> None:
        """Keep the generator: what a policy is told depends on the scene."""
        self._rng = rng

    def select(self, scene: Scene) -> Selection:
        """Means of tiles, their scores, and the policy's answer for every head.

        Tiles of text (``grid.text``, in front) read everything and are read by all, beyond what the policy may keep.
        """
        if scene.q_blocks.count != scene.k_blocks.count:
            raise InputError(f"tiles of queries and keys differ ({scene.q_blocks.count} and {scene.k_blocks.count}); give both one grid.")
        q, k, top = scene.pooled("q") * scale_of(scene.q.shape[2]), scene.pooled("k"), scene.pooled("k", "max")
        places = _places(scene)
        frames, high, wide = (int(size) for size in places.max(axis=0) + 1)
        self.policy.reset(TileSpec((frames, high, wide), scene.keep, len(q)), self._rng)
        sizes = scene.k_blocks.sizes[0].astype(np.int64)
        masks = np.stack([self.policy.select(TileView(q[h] @ k[h].T, q[h] @ top[h].T, sizes, places)).mask for h in range(len(q))])
        rows, columns = text_blocks(scene)
        masks[:, :rows], masks[:, :, :columns] = True, True
        return Selection(masks)

    def __repr__(self) -> str:
        return f"TileSelector({self.policy!r})"


def _places(scene: Scene) -> np.ndarray:
    """Where each tile lies, counted in tiles, by its first token; text lies at the origin. Without a grid, along one axis."""
    blocks, grid = scene.q_blocks, scene.grid
    if grid is None:
        return np.stack([np.arange(blocks.count), *np.zeros((2, blocks.count), np.int64)], axis=1)
    order = np.arange(grid.tokens) if blocks.order is None else blocks.order[0]
    first = order[np.minimum(blocks.starts()[0][:-1], grid.tokens - 1)]
    at = np.where((first < grid.text)[:, None], 0, grid.positions()[np.maximum(first - grid.text, 0)])
    return np.stack([np.unique(axis, return_inverse=True)[1] for axis in at.T], axis=1).astype(np.int64)


class CoarseBranch(torch.nn.Module):
    """Attention between means of tiles, broadcast to their tokens and gated: O = G_f * fine + G_c * coarse.

    The choice of tiles has no gradient, but the same scores weigh the coarse output: through it the router learns, and that is why the
    coarse output is not thrown away.

    Parameters
    ----------
    dim : int
        Width of the hidden states that the gates are computed from.
    heads, head_dim : int
    gates : {"c", "cf"}, default "c"
        Gate the coarse output only, as the public code does, or the fine one too, as the paper writes it.
    init : {"zero", "normal"}, default "zero"
        With "zero" a pretrained model starts as it was: G_c is 0, and G_f is 1.

    References
    ----------
    VSA: Faster Video Diffusion with Trainable Sparse Attention.
    """

    def __init__(
        self, dim: int, heads: int, head_dim: int, *, gates: Literal["c", "cf"] = "c", init: Literal["zero", "normal"] = "zero"
    ) -> None:
        super().__init__()
        if gates not in ("c", "cf") or init not in ("zero", "normal"):
            raise InputError(f"gates must be 'c' or 'cf' and init 'zero' or 'normal', got {gates!r} and {init!r}.")
        self.heads, self.head_dim = heads, head_dim
        self.coarse_gate = torch.nn.Linear(dim, heads * head_dim)
        self.fine_gate = torch.nn.Linear(dim, heads * head_dim) if gates == "cf" else None
        for gate in (self.coarse_gate, self.fine_gate):
            if gate is not None and init == "zero":
                torch.nn.init.zeros_(gate.weight)
                torch.nn.init.constant_(gate.bias, 0.0 if gate is self.coarse_gate else 1.0)

    def forward(self, fine: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, x: Tensor | None = None) -> Tensor:
        """Return the gated sum.

        Raises
        ------
        InputError
            Without hidden states, or where every head has tiles of its own.
        """
        if x is None or x.shape[:2] != (q.shape[0], q.shape[2]):
            raise InputError(f"the gates need the hidden states x of shape ({q.shape[0]}, {q.shape[2]}, width).")
        if len(index.q_sizes) > 1 or len(index.k_sizes) > 1:
            raise InputError("the coarse branch needs tiles that are the same for all heads.")
        group = q.shape[1] // k.shape[1]
        means = [_means(q, index.q_sizes[0]), *(_means(each, index.k_sizes[0]).repeat_interleave(group, 1) for each in (k, v))]
        scores = means[0] @ means[1].transpose(2, 3) * scale_of(q.shape[3])
        empty = torch.as_tensor(index.k_sizes[0] == 0, device=q.device)
        coarse = torch.softmax(scores.masked_fill(empty, float("-inf")), dim=3) @ means[2]
        read = fine[0] if self.fine_gate is None else self._heads(self.fine_gate(x)) * fine[0]
        gate, sizes = self._heads(self.coarse_gate(x)), index.q_sizes[0]
        if _are_equal(sizes):
            cut = (len(sizes), int(sizes[0]))
            return torch.addcmul(_cut(read, *cut), _cut(gate, *cut), coarse[:, :, :, None]).flatten(2, 3)
        owned = coarse.repeat_interleave(torch.as_tensor(sizes.astype(np.int64), device=q.device), dim=2)
        return torch.addcmul(read, gate, owned)

    def flops(self, index: BlockIndex, q: Tensor, v: Tensor) -> float:
        """Products of means, and the gates."""
        pairs = 2.0 * index.q_blocks * index.k_blocks * (q.shape[3] + v.shape[3])
        gates = 1 if self.fine_gate is None else 2
        return q.shape[0] * (q.shape[1] * pairs + 2.0 * gates * q.shape[2] * self.coarse_gate.in_features * self.heads * self.head_dim)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_dim).transpose(1, 2)


def _means(x: Tensor, sizes: np.ndarray) -> Tensor:
    """Means over the tokens of each tile, (batch, heads, tiles, dimension); 0 for an empty one."""
    if _are_equal(sizes):
        return _cut(x, len(sizes), int(sizes[0])).mean(3)
    owner = torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes), device=x.device)
    sums = x.new_zeros(*x.shape[:2], len(sizes), x.shape[3]).index_add(2, owner, x)
    return sums / torch.as_tensor(np.maximum(sizes, 1), dtype=x.dtype, device=x.device)[:, None]


def _cut(x: Tensor, tiles: int, size: int) -> Tensor:
    """Tokens by tile, (batch, heads, tiles, size, dimension): a view."""
    return x.view(*x.shape[:2], tiles, size, x.shape[3])


def _are_equal(sizes: np.ndarray) -> bool:
    return len(sizes) > 0 and sizes[0] > 0 and bool((sizes == sizes[0]).all())


class SparsityRamp:
    """Raise the sparsity step by step while a pretrained model is adapted, and end exactly at the target.

    Parameters
    ----------
    target : float
        Sparsity at the end, in [0, 1).
    rate : float, default 0.03
        About so much more each time; the number of increments is target / rate, rounded.
    interval : int, default 50
        Training steps between increments.

    Examples
    --------
    >>> ramp = SparsityRamp(0.8, rate=0.03, interval=50)
    >>> ramp.at(0), round(ramp.at(50), 4), ramp.at(10_000)
    (0.0, 0.0296, 0.8)
    """

    def __init__(self, target: float, rate: float = 0.03, interval: int = 50) -> None:
        if not 0 <= target < 1 or not 0 < rate <= 1 or interval < 1:
            raise InputError(f"target must be in [0, 1), rate in (0, 1] and interval at least 1, got {target}, {rate} and {interval}.")
        self.target, self.interval = target, interval
        self.increments = max(1, round(target / rate))

    def at(self, step: int) -> float:
        """Sparsity at a training step."""
        return self.target * (min(step // self.interval, self.increments) / self.increments)


def vsa(
    dim: int,
    heads: int,
    head_dim: int,
    *,
    sparsity: float = 0.875,
    tile: tuple[int, int, int] = (4, 4, 4),
    gates: Literal["c", "cf"] = "c",
    init: Literal["zero", "normal"] = "zero",
    policy: Any = None,
) -> SparseAttention:
    """VSA for a layer: tiles, router, kernel and coarse branch; its ``density`` follows a :class:`SparsityRamp` if you set it so.

    ``init="normal"`` is for models that are trained from scratch; see :class:`CoarseBranch`.

    Raises
    ------
    InputError
        If the sparsity is not in [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity must be at least 0 and below 1, got {sparsity}.")
    branch = CoarseBranch(dim, heads, head_dim, gates=gates, init=init)
    return SparseAttention(TileSelector(policy or CoarseTopK()), layout=TileLayout(tile), correction=branch, density=1 - sparsity)
