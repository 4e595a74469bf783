"""Which KV of a prompt stays in memory after its one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudchamber.core.policy import Parameters, Policy
from cloudchamber.engine.model import ReqView, SchedulerPolicy, View


class KeepAll(Parameters):
    """Keep the whole prompt, as far as the pool is large enough."""

    def keep_tokens(self, n_input: int, n_hit: int, free_tokens: int, block: int) -> int:
        """Return ``n_input``."""
        return n_input


class KeepNone(Parameters):
    """Keep nothing but what was found."""

    def keep_tokens(self, n_input: int, n_hit: int, free_tokens: int, block: int) -> int:
        """Return ``n_hit``."""
        return n_hit


class SuffixDiscard(Parameters):
    """Keep the longest prefix that fits, in whole blocks, and discard the rest: reuse lives in prefixes."""

    def keep_tokens(self, n_input: int, n_hit: int, free_tokens: int, block: int) -> int:
        """Return the tokens of the blocks that fit."""
        return n_input if n_input <= free_tokens else max(n_hit, free_tokens // block * block)


class _Keeping(Policy, SchedulerPolicy):
    """A policy that asks its ``prefix_keep`` what stays."""

    prefix_keep: Any

    def keep(self, view: View, r: ReqView) -> int:
        """What ``prefix_keep`` says, in blocks of the engine."""
        block = self.spec_.block_tokens
        kept = self.prefix_keep.keep_tokens(r.n_input, r.n_cached_now, (view.free + view.cached) * block, block)
        return int(kept)


def columns(waiting: Sequence[ReqView]) -> Any:
    """Return ids, arrivals, prompt tokens and cached tokens of requests as four arrays."""
    import numpy as np

    n = len(waiting)
    return (
        np.fromiter((r.id for r in waiting), np.int64, n),
        np.fromiter((r.arrival for r in waiting), np.float64, n),
        np.fromiter((r.n_input for r in waiting), np.float64, n),
        np.fromiter((r.n_cached_now for r in waiting), np.float64, n),
    )
