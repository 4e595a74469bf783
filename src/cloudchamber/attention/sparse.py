"""Sparse attention as a module: layout, selector, kernel, correction and schedule, each replaceable by itself."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.kernel import sparse_attention
from cloudchamber.attention.layouts import Carry, Layout, Raster
from cloudchamber.attention.model import AttentionSpec, BlockIndex, Blocks, Grid, Scene, Selection, Selector
from cloudchamber.core.errors import InputError

DENSE_BLOCK = 64


class IndexSelector(Protocol):
    """A selector that answers with an index itself: a static mask, or one with weights."""

    def reset(self, spec: AttentionSpec, rng: np.random.Generator) -> None:
        """Forget everything; called when the shape of the work changes."""
        ...

    def select(self, scene: Scene) -> BlockIndex:
        """Return what is read."""
        ...


class Correction(Protocol):
    """A cheap branch that stands for what was not selected; a module where it has parameters.

    It may also tell ``flops(index, q, v)``, the operations it adds, as :class:`SparseAttention` reports them.
    """

    def __call__(self, fine: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, x: Tensor | None = None) -> Tensor:
        """Return the output, given the kernel's (out, lse). Everything is in the order of the blocks, ``x`` too."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Where attention stays dense: the first share of layers and the first share of sampling steps set the picture.

    Examples
    --------
    >>> Schedule(dense_steps=0.25).is_dense(layer=0.5, step=0.2)
    True
    >>> round(Schedule(dense_layers=0.05, dense_steps=0.24).run_density(0.3, layers=40, steps=50), 4)
    0.4946
    """

    dense_layers: float = 0.0
    dense_steps: float = 0.0

    def is_dense(self, layer: float, step: float) -> bool:
        """Whether a layer at this share of the depth runs dense at this share of the steps."""
        return layer < self.dense_layers or step < self.dense_steps

    def run_density(self, sparse: float, layers: int, steps: int) -> float:
        """Density of a whole run, dense layers and steps included, where the others have density ``sparse``.

        Published sparsity often leaves out the dense part; this does not.
        """
        if layers < 1 or steps < 1:
            raise InputError(f"a run has at least one layer and one step, got {layers} and {steps}.")
        dense = sum(self.is_dense(layer / layers, step / steps) for layer in range(layers) for step in range(steps)) / (layers * steps)
        return dense + (1 - dense) * sparse


@dataclass
class Seconds:
    """Wall time of each stage, as the calling thread sees it: a device that computes behind its back is not waited for."""

    layout: float = 0.0
    permute: float = 0.0
    select: float = 0.0
    kernel: float = 0.0
    correct: float = 0.0

    @property
    def total(self) -> float:
        """All stages."""
        return self.layout + self.permute + self.select + self.kernel + self.correct

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside towards a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


@dataclass(frozen=True)
class AttentionResult:
    """What a call gave and what it cost.

    Parameters
    ----------
    out : Tensor, shape (batch, heads, queries, dimension of v)
    lse : Tensor, shape (batch, heads, queries)
        Of the selected keys.
    density : float
        Share of all pairs of a query and a key that was computed, token by token.
    flops : float
        Floating-point operations of kernel and correction.
    seconds : Seconds
    carry : Carry
        For the next call.
    index : BlockIndex
        What was read, in the order of the blocks.
    """

    out: Tensor
    lse: Tensor
    density: float
    flops: float
    seconds: Seconds
    carry: Carry
    index: BlockIndex = field(repr=False)


class SparseAttention(torch.nn.Module):
    """Attention that reads the blocks a selector names.

    Parameters
    ----------
    selector : Selector or IndexSelector
        Decides, on numbers alone.
    layout : Layout, optional
        By default :class:`Raster` of 64.
    correction : Correction, optional
        By default none.
    density : float, default 0.1
        Share of key blocks that a query block may read on average.
    schedule : Schedule, optional
        By default nothing runs dense.
    backend : str, default "auto"
        Of :func:`sparse_attention`.
    seed : int, default 0
        Of the selector's random numbers.
    min_tokens : int, default 0
        With fewer keys attention runs dense: short inputs cost more to choose from than to read.
    """

    def __init__(
        self,
        selector: Selector | IndexSelector,
        *,
        layout: Layout | None = None,
        correction: Correction | None = None,
        density: float = 0.1,
        schedule: Schedule | None = None,
        backend: str = "auto",
        seed: int = 0,
        min_tokens: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < density <= 1:
            raise InputError(f"density must be in (0, 1], got {density}.")
        if min_tokens < 0:
            raise InputError(f"min_tokens must be at least 0, got {min_tokens}.")
        self.selector, self.layout, self.correction = selector, layout or Raster(), correction
        self.density, self.schedule, self.backend, self.seed = density, schedule or Schedule(), backend, seed
        self.min_tokens = min_tokens
        self.layer = self.step = 1.0
        self._spec: AttentionSpec | None = None

    def at(self, *, layer: float | None = None, step: float | None = None) -> Self:
        """Tell where in the model and in sampling the next calls are, as shares in [0, 1], for the schedule."""
        self.layer = self.layer if layer is None else layer
        self.step = self.step if step is None else step
        return self

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        grid: Grid | None = None,
        x: Tensor | None = None,
        carry: Carry | None = None,
        branch: Hashable = None,
    ) -> AttentionResult:
        """Attend.

        Parameters
        ----------
        q, k, v : Tensor, shape (batch, heads, tokens, dimension)
            Fewer key heads than query heads are shared by groups.
        grid : Grid, optional
            Where the tokens lie, for layouts and selectors that go by it.
        x : Tensor, shape (batch, queries, width), optional
            Hidden states, for corrections that are gated by them.
        carry : Carry, optional
            Of the call before.
        branch : hashable, optional
            Name of the pass, where several take turns in one step of sampling (with and without the prompt): each has its own carry.
        """
        seconds, carry = Seconds(), carry or Carry()
        if k.shape[2] < self.min_tokens or self.schedule.is_dense(self.layer, self.step):
            return self._dense(q, k, v, seconds, carry)
        with seconds.stage("layout"):
            q_blocks, k_blocks = self.layout.arrange(q, k, grid, carry.of(self.layer, branch))
        with seconds.stage("permute"):
            moved_q, moved_k, moved_v = permuted(q, q_blocks.order), permuted(k, k_blocks.order), permuted(v, k_blocks.order)
        with seconds.stage("select"):
            index = self._select(moved_q, moved_k, q_blocks, k_blocks, grid)
        on_empty = "raise" if self.correction is None else "zero"  # a correction may stand for everything
        with seconds.stage("kernel"):
            out, lse = sparse_attention(moved_q, moved_k, moved_v, index, backend=self.backend, on_empty=on_empty)
        flops = _flops(index, q, v)
        if self.correction is not None:
            moved_x = None
            if x is not None:
                with seconds.stage("permute"):
                    moved_x = _permuted_states(x, q_blocks.order)
            with seconds.stage("correct"):
                out = self.correction((out, lse), moved_q, moved_k, moved_v, index, moved_x)
            told = getattr(self.correction, "flops", None)
            flops += 0.0 if told is None else float(told(index, q, v))
        with seconds.stage("permute"):
            back = q_blocks.inverse()
            out, lse = permuted(out, back), permuted(lse[..., None], back)[..., 0]
        return AttentionResult(out, lse, index.density(), flops, seconds, carry, index)

    def _select(self, q: Tensor, k: Tensor, q_blocks: Blocks, k_blocks: Blocks, grid: Grid | None) -> BlockIndex:
        """Ask the selector, on arrays; it starts afresh when the shape of the work changes."""
        spec = AttentionSpec(q.shape[3], int(q_blocks.sizes.max(initial=0)), self.density)
        if spec != self._spec:
            self.selector.reset(spec, np.random.default_rng(self.seed))
            self._spec = spec
        group = q.shape[1] // max(k.shape[1], 1)
        if group > 1:  # a selector sees a key head beside each query head
            k = k.repeat_interleave(group, 1)
            if len(k_blocks.sizes) > 1:
                order = None if k_blocks.order is None else np.repeat(k_blocks.order, group, axis=0)
                k_blocks = Blocks(np.repeat(k_blocks.sizes, group, axis=0), order)
        keep = max(1, round(self.density * k_blocks.count))
        answer = self.selector.select(Scene(_array(q), _array(k), q_blocks, k_blocks, keep, grid))
        return BlockIndex.of(answer.mask, q_blocks, k_blocks) if isinstance(answer, Selection) else answer

    def _dense(self, q: Tensor, k: Tensor, v: Tensor, seconds: Seconds, carry: Carry) -> AttentionResult:
        """Every key, without a correction: nothing is left for it to stand for."""
        index = BlockIndex.of(np.ones((1, -(-q.shape[2] // DENSE_BLOCK), 1), bool), Blocks.uniform(q.shape[2], DENSE_BLOCK), _one(k))
        with seconds.stage("kernel"):
            out, lse = sparse_attention(q, k, v, index, backend=self.backend)
        return AttentionResult(out, lse, 1.0, _flops(index, q, v), seconds, carry, index)

    def extra_repr(self) -> str:
        """The parts, as torch prints them."""
        return f"selector={self.selector!r}, layout={self.layout!r}, density={self.density}, backend={self.backend!r}"


def permuted(x: Tensor, order: np.ndarray | None) -> Tensor:
    """Tokens of (batch, heads, tokens, dimension) in another order: one for all heads, or one for each."""
    if order is None:
        return x
    if len(order) == 1:
        return x.index_select(2, torch.tensor(order[0], device=x.device))
    if len(order) != x.shape[0] * x.shape[1]:
        raise InputError(f"the layout has {len(order)} orders for {x.shape[0]} x {x.shape[1]} heads; give one for all, or one each.")
    places = torch.tensor(order + np.arange(len(order))[:, None] * order.shape[1], device=x.device)
    return x.reshape(-1, x.shape[3]).index_select(0, places.flatten()).view(x.shape)


def _permuted_states(x: Tensor, order: np.ndarray | None) -> Tensor:
    if order is None:
        return x
    if len(order) > 1:
        raise InputError(f"hidden states have one order, but the layout has one for each of {len(order)} heads.")
    return x.index_select(1, torch.tensor(order[0], device=x.device))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().flatten(0, 1).to("cpu", torch.float32).numpy()


def _one(x: Tensor) -> Blocks:
    """All tokens as one block."""
    return Blocks.uniform(x.shape[2], max(x.shape[2], 1))


def _flops(index: BlockIndex, q: Tensor, v: Tensor) -> float:
    """Two products of each pair: with the key, and with the value."""
    pairs = index.density() * q.shape[0] * q.shape[1] * q.shape[2] * v.shape[2]
    return 2.0 * pairs * (q.shape[3] + v.shape[3])
