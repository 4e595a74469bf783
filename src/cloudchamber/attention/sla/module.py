"""SLA in a model: the router as a selector, the parts put together, and the schedule that lowers the critical share."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from cloudchamber.attention.layouts import Layout
from cloudchamber.attention.model import AttentionSpec, BlockIndex, Rows, Scene, changed, text_blocks
from cloudchamber.attention.sparse import SparseAttention
from cloudchamber.attention.vsa.coarse import SparsityRamp
from cloudchamber.core.errors import InputError

from .branch import LinearBranch, Region
from .features import Phi
from .model import CRITICAL, NEGLIGIBLE, RouteSpec, counts
from .policies.top_share import TopShare
from .pooling import views


class SLASelector:
    """A :class:`BlockRoute` as the selector of a :class:`SparseAttention`: it is asked head by head.

    Parameters
    ----------
    k_h : float or None, default None
        Share of key blocks that are critical; None: the ``density`` of the attention, so that a :class:`ShareRamp` may set that.
    k_l : float, default 0.1
        Share that is negligible.
    policy : BlockRoute, optional
        By default :class:`TopShare`.
    strict : bool, default False
        Refuse a share of less than one block; otherwise one block is critical.

    Raises
    ------
    InputError
        If the shares are no shares, or sum to more than 1.
    """

    def __init__(self, k_h: float | None = None, k_l: float = 0.1, *, policy: Any = None, strict: bool = False) -> None:
        check_shares(k_h, k_l)
        self.k_h, self.k_l, self.strict = k_h, k_l, strict
        self.policy = policy or TopShare()
        self._rng, self._density = np.random.default_rng(0), 1.0

    def reset(self, spec: AttentionSpec, rng: np.random.Generator) -> None:
        """Keep the generator and the density: what a policy is told depends on the scene."""
        self._rng, self._density = rng, spec.density

    def select(self, scene: Scene) -> BlockIndex:
        """Means of blocks, and the policy's answer for every head, which names negligible blocks too.

        Blocks of text (``grid.text``, in front) are critical to all, and all to them, beyond the share that is asked for.
        """
        share = self._density if self.k_h is None else self.k_h
        critical, negligible = counts(share, self.k_l, scene.k_blocks.count, strict=self.strict)
        self.policy.reset(RouteSpec(critical, negligible, len(scene.q)), self._rng)
        labels = np.stack([self.policy.route(view).labels for view in views(scene.q, scene.k, scene.q_blocks, scene.k_blocks)])
        rows, columns = text_blocks(scene)
        labels[:, :rows], labels[:, :, :columns] = CRITICAL, CRITICAL
        index = BlockIndex.of(labels == CRITICAL, scene.q_blocks, scene.k_blocks)
        return changed(index, negligible=Rows.of(labels == NEGLIGIBLE))

    def __repr__(self) -> str:
        return f"SLASelector(k_h={self.k_h}, k_l={self.k_l}, policy={self.policy!r})"


class ShareRamp:
    """Lower the critical share step by step, from everything down to the target, while a model is adapted: it helps small models.

    Parameters
    ----------
    target : float, default 0.05
        Share at the end, in (0, 1].
    rate : float, default 0.03
        About so much less each time.
    interval : int, default 50
        Training steps between.

    Examples
    --------
    >>> ramp = ShareRamp(0.05, interval=10)
    >>> ramp.at(0), round(ramp.at(10), 4), ramp.at(10_000)
    (1.0, 0.9703, 0.05)
    """

    def __init__(self, target: float = 0.05, rate: float = 0.03, interval: int = 50) -> None:
        if not 0 < target <= 1:
            raise InputError(f"target must be in (0, 1], got {target}.")
        self.target = target
        self._sparsity = SparsityRamp(1 - target, rate, interval)

    def at(self, step: int) -> float:
        """Critical share at a training step."""
        sparsity = self._sparsity.at(step)
        return self.target if sparsity == self._sparsity.target else 1 - sparsity


def sla(
    head_dim: int,
    *,
    k_h: float = 0.05,
    k_l: float = 0.1,
    phi: Phi = "softmax",
    region: Region = "marginal",
    combine: Literal["sum", "ratio"] = "sum",
    layout: Layout | None = None,
) -> SparseAttention:
    """SLA for a layer: router, kernel and linear branch; its ``density`` is the critical share, and follows a :class:`ShareRamp` if set so.

    Blocks are runs of 64 tokens; for video give ``layout=TileLayout((4, 4, 4))``, for a run of neighbours mixes pixels that lie apart.

    Raises
    ------
    InputError
        If the shares are no shares, or sum to more than 1.
    """
    check_shares(k_h, k_l)
    branch = LinearBranch(head_dim, phi=phi, region=region, combine=combine)
    attention = SparseAttention(SLASelector(k_l=k_l), layout=layout, correction=branch, density=k_h)
    attention.register_forward_pre_hook(_tell_layer)
    return attention


def check_shares(k_h: float | None, k_l: float) -> None:
    """Shares must be such.

    Raises
    ------
    InputError
        If they are not, or are more than all together.
    """
    critical = 0.0 if k_h is None else k_h
    if (k_h is not None and not 0 < k_h <= 1) or not 0 <= k_l <= 1 or critical + k_l > 1 + 1e-9:
        raise InputError(f"k_h must be in (0, 1], k_l in [0, 1], and both at most 1 together; got {k_h} and {k_l}.")


def _tell_layer(module: torch.nn.Module, _: Any) -> None:
    """So that the branch's errors can say where they happen."""
    attention: Any = module
    attention.correction.layer = attention.layer
