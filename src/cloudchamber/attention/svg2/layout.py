"""Clusters as a layout: each head's queries and keys are put beside those that are like them, starting from the last call's centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.layouts import Carry
from cloudchamber.attention.model import Blocks, Grid
from cloudchamber.core.errors import InputError

from .clustering import METRICS, Clusters, Metric, batch_kmeans


@dataclass(frozen=True, eq=False)
class Centroids:
    """What the layout leaves in a carry: centres, (batch x heads, clusters, dimension), and how often others had to be given up.

    Parameters
    ----------
    q, k : ndarray
        A call replaces them by new arrays and changes none in place.
    tokens : tuple of (int, int)
        Queries and keys they were found for.
    resets : int
        Calls that found something of another shape in the carry, and began anew.
    """

    q: np.ndarray
    k: np.ndarray
    tokens: tuple[int, int]
    resets: int = 0


class KMeansLayout:
    """Put tokens of a head that are alike into one block, queries and keys apart.

    The first call clusters from the start, later ones from the centres in the carry: from step to step of sampling tokens move little,
    and two iterations do. Text tokens (``grid.text``) stay in front as a block of their own. The permutation is a constant to a gradient.

    Parameters
    ----------
    n_q, n_k : int, optional
        Clusters of queries and of keys; by default n / 128 between 4 and 400, and n / 64 between 8 and 1000.
    init_iters, step_iters : int, default 50 and 2
        Updates at most in the first call and in those that follow.
    metric : {"l2", "cosine", "dot"}, default "l2"
        Of :func:`batch_kmeans`.
    start : {"k-means++", "random"}, default "k-means++"
        First centres. Random rows merge groups that k-means++ tells apart.
    seed : int, default 0
        Of the first centres, together with the head's number: a clip's blocks do not depend on its batch.

    References
    ----------
    Sparse VideoGen2: Accelerate Video Generation with Sparse Attention via Semantic-Aware Permutation.
    """

    def __init__(
        self,
        n_q: int | None = None,
        n_k: int | None = None,
        *,
        init_iters: int = 50,
        step_iters: int = 2,
        metric: Metric = "l2",
        start: Literal["k-means++", "random"] = "k-means++",
        seed: int = 0,
    ) -> None:
        for name, value, least in (("n_q", n_q, 1), ("n_k", n_k, 1), ("init_iters", init_iters, 0), ("step_iters", step_iters, 0)):
            if value is not None and (type(value) is not int or value < least):
                raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        if metric not in METRICS or start not in ("k-means++", "random"):
            raise InputError(f"metric must be one of {', '.join(METRICS)} and start k-means++ or random, got {metric!r} and {start!r}.")
        self.n_q, self.n_k, self.init_iters, self.step_iters = n_q, n_k, init_iters, step_iters
        self.metric: Metric = metric
        self.start: Literal["k-means++", "random"] = start
        self.seed = seed

    def arrange(self, q: Tensor, k: Tensor, grid: Grid | None, carry: Carry) -> tuple[Blocks, Blocks]:
        """Clusters of the queries of every head, and of the keys of every key head.

        Raises
        ------
        InputError
            If there are more clusters than tokens, a number is not finite, or the grid has text and other tokens than q and k.
        """
        text = 0 if grid is None else grid.text
        if grid is not None and text and not q.shape[2] == k.shape[2] == grid.tokens:
            raise InputError(f"{grid} has {grid.tokens} tokens, q and k have {q.shape[2]} and {k.shape[2]}.")
        rows = [x.detach().flatten(0, 1)[:, text:].to("cpu", torch.float32).numpy() for x in (q, k)]
        counts = [_clusters(self.n_q, rows[0].shape[1], 128, 4, 400), _clusters(self.n_k, rows[1].shape[1], 64, 8, 1000)]
        last, tokens = carry.layout, (q.shape[2], k.shape[2])
        fits = (
            isinstance(last, Centroids)
            and last.tokens == tokens
            and all(centres.shape == (len(x), count, x.shape[2]) for centres, x, count in zip((last.q, last.k), rows, counts, strict=True))
        )
        before = (last.q, last.k) if isinstance(last, Centroids) and fits else (None, None)
        made = [self._clustered(rows[side], counts[side], x.shape[1], before[side]) for side, x in enumerate((q, k))]
        resets = (last.resets if isinstance(last, Centroids) else 0) + (last is not None and not fits)
        carry.layout = Centroids(made[0].centres, made[1].centres, tokens, resets)
        return _with_text(made[0].blocks(), text), _with_text(made[1].blocks(), text)

    def _clustered(self, rows: np.ndarray, count: int, heads: int, before: np.ndarray | None) -> Clusters:
        """Clusters of (batch x heads, tokens, dimension), each head with draws of its own, so that no clip depends on its batch."""
        found = [
            batch_kmeans(
                rows[i : i + 1],
                count,
                init=self.start if before is None else before[i : i + 1],
                iterations=self.init_iters if before is None else self.step_iters,
                metric=self.metric,
                rng=np.random.default_rng((self.seed, i % heads)),
            )
            for i in range(len(rows))
        ]
        labels, centres = (np.concatenate([getattr(each, name) for each in found]) for name in ("labels", "centres"))
        return Clusters(labels, centres, sum(each.inertia for each in found), max(each.iterations for each in found))

    def __repr__(self) -> str:
        return f"KMeansLayout({self.n_q}, {self.n_k}, init_iters={self.init_iters}, step_iters={self.step_iters}, metric={self.metric!r})"


def _clusters(asked: int | None, tokens: int, each: int, least: int, most: int) -> int:
    return min(max(tokens // each, least), most, max(tokens, 1)) if asked is None else asked


def _with_text(blocks: Blocks, text: int) -> Blocks:
    """The same with a block of text in front."""
    if not text:
        return blocks
    heads = len(blocks.sizes)
    assert blocks.order is not None
    front = np.broadcast_to(np.arange(text, dtype=blocks.order.dtype), (heads, text))
    sizes = np.concatenate([np.full((heads, 1), text, blocks.sizes.dtype), blocks.sizes], axis=1)
    return Blocks(sizes, np.concatenate([front, blocks.order + text], axis=1))
