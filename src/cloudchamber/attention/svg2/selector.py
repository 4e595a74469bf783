"""Sparse VideoGen2 as a module: cluster rules as selectors, and the constructor that puts the parts together."""

from __future__ import annotations

from typing import Any

import numpy as np

from cloudchamber.attention.layouts import Layout
from cloudchamber.attention.model import AttentionSpec, Blocks, Grid, Scene, Selection, text_blocks
from cloudchamber.attention.sparse import Schedule, SparseAttention
from cloudchamber.core.errors import InputError

from .estimates import view_of
from .layout import KMeansLayout
from .model import ClusterSpec
from .policies.calibrated import CalibratedTopP

MIN_TOKENS = 2048  # 1.4 times as fast as dense from here on, half as fast at 1,024: benchmarks/attention_methods.py --lengths


class ClusterSelector:
    """A :class:`ClusterKeep` as the selector of a :class:`SparseAttention`, on the blocks of any layout: it is asked head by head.

    Blocks of text (``grid.text``, in front) read everything and are read by all; the rule decides about the others.

    Parameters
    ----------
    policy : ClusterKeep
    p : float, default 0.9
        Share of the attention that is to be caught.
    samples : int, default 32
        Queries of each head that are looked at in full.
    """

    def __init__(self, policy: Any, p: float = 0.9, *, samples: int = 32) -> None:
        if not 0 < p <= 1 or samples < 0:
            raise InputError(f"p must be in (0, 1] and samples at least 0, got {p} and {samples}.")
        self.policy, self.p, self.samples = policy, p, samples
        self._seed = 0

    def reset(self, spec: AttentionSpec, rng: np.random.Generator) -> None:
        """Draw a seed: every call begins with it, so that an answer does not depend on the calls before."""
        self._seed = int(rng.integers(2**32))

    def select(self, scene: Scene) -> Selection:
        """Estimates, and the policy's answer for every head.

        Raises
        ------
        InputError
            If an answer has another shape, or leaves a query without keys.
        """
        heads = len(scene.q)
        self.policy.reset(ClusterSpec(self.p, heads), np.random.default_rng(self._seed))
        # every head draws anew from the seed: a scene does not tell which clip a head is of, and none may depend on its batch
        return Selection(np.stack([self._head(scene, h, np.random.default_rng(self._seed)) for h in range(heads)]))

    def _head(self, scene: Scene, h: int, rng: np.random.Generator) -> np.ndarray:
        blocks = scene.q_blocks.of_head(h), scene.k_blocks.of_head(h)
        skipped = text_blocks(scene)
        mask = np.ones((blocks[0].count, blocks[1].count), bool)
        rest = [Blocks(each.sizes[:, skip:]) for each, skip in zip(blocks, skipped, strict=True)]
        if not rest[0].tokens or not rest[1].tokens:
            return mask
        start = [each.tokens - left.tokens for each, left in zip(blocks, rest, strict=True)]
        drawn = np.sort(rng.choice(rest[0].tokens, min(self.samples, rest[0].tokens), replace=False))
        view = view_of(
            scene.q[h, start[0] :],
            scene.k[h, start[1] :],
            rest[0],
            rest[1],
            (_places(blocks[0], scene.grid)[start[0] :], _places(blocks[1], scene.grid)[start[1] :]),
            drawn,
            p=self.p,
            antidiagonals=getattr(self.policy, "reads_antidiagonals", False),
        )
        kept = self.policy.keep(view).mask
        if kept.shape != view.prob.shape:
            raise InputError(f"the mask of head {h} must have the shape {view.prob.shape}, got {kept.shape}.")
        kept = kept & (view.sizes_k > 0)
        if ((view.sizes_q > 0) & ~kept.any(axis=1)).any() and not skipped[1]:
            raise InputError(f"{self.policy!r} leaves queries of head {h} without a key; keep at least one cluster for each.")
        mask[skipped[0] :, skipped[1] :] = kept
        return mask

    def __repr__(self) -> str:
        return f"ClusterSelector({self.policy!r}, p={self.p})"


def _places(blocks: Blocks, grid: Grid | None) -> np.ndarray:
    """Where the token at each place lies; text at the origin, and without a grid one after another."""
    order = np.arange(blocks.tokens) if blocks.order is None else blocks.order[0]
    if grid is None or grid.tokens != blocks.tokens:
        return np.stack([order, *np.zeros((2, len(order)), order.dtype)], axis=1).astype(np.float32)
    return np.concatenate([np.zeros((grid.text, 3)), grid.positions()]).astype(np.float32)[order]


def svg2(
    p: float = 0.9,
    *,
    layout: Layout | None = None,
    policy: Any = None,
    schedule: Schedule | None = None,
    min_tokens: int = MIN_TOKENS,
    backend: str = "auto",
    seed: int = 0,
) -> SparseAttention:
    """Sparse VideoGen2 for a layer of a model that nobody trains for it: pass each call the last one's carry.

    Parameters
    ----------
    p : float, default 0.9
        Share of the attention that is to be caught.
    layout : Layout, optional
        By default :class:`KMeansLayout`; with :class:`Raster` or :class:`TileLayout` the rule decides about runs or tiles of neighbours.
    policy : ClusterKeep, optional
        By default :class:`CalibratedTopP`, which checks what it delivers; :class:`CentroidTopP` is the published rule.
    schedule : Schedule, optional
        What runs dense; published are the first 10 to 20 % of the steps, and 3 % of the layers.
    min_tokens : int
        With fewer tokens attention runs dense, because clustering costs more than it saves.
    backend : str, default "auto"
        Of :func:`sparse_attention`.
    seed : int, default 0
        Of the queries that are looked at in full.

    Examples
    --------
    >>> import torch
    >>> q, k, v = torch.randn(3, 1, 2, 256, 16).unbind()
    >>> attention = svg2(0.5, min_tokens=0)
    >>> first = attention(q, k, v)
    >>> attention(q, k, v, carry=first.carry).density < 1
    True
    """
    return SparseAttention(
        ClusterSelector(policy or CalibratedTopP(), p),
        layout=layout or KMeansLayout(),
        density=1.0,
        schedule=schedule,
        backend=backend,
        seed=seed,
        min_tokens=min_tokens,
    )
