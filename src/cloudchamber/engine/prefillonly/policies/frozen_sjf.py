"""Shortest job first, by what was cached when the job came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudchamber.core.policy import Instance, Parameters, Real
from cloudchamber.engine.model import CACHED, ReqView, Retain, View
from cloudchamber.engine.prefillonly.policies.jct import MissTokens
from cloudchamber.engine.prefillonly.policies.keeping import SuffixDiscard, _Keeping


class FrozenSJF(_Keeping):
    """Serve by jct(n_input, n_cached at arrival) - lam · seconds waited: :class:`CalibratedSJF` that never looks again.

    Parameters
    ----------
    lam : float, default 500.0
        What a second of waiting is worth, in the unit of ``jct``.
    jct : JCT, default MissTokens()
    prefix_keep : PrefixKeep, default SuffixDiscard()
    """

    _constraints = {"lam": Real(0, 1e15), "jct": Instance(Parameters), "prefix_keep": Instance(Parameters)}

    def __init__(self, lam: float = 500.0, jct: Parameters = MissTokens(), *, prefix_keep: Parameters = SuffixDiscard()) -> None:  # noqa: B008
        self.lam = lam
        self.jct = jct
        self.prefix_keep = prefix_keep

    def reset(self, spec: Any, rng: Any) -> None:
        """Forget the scores."""
        super().reset(spec, rng)
        self.scores_: dict[int, float] = {}

    def on_arrive(self, view: View, r: ReqView) -> None:
        """Score once: of two requests the order never changes, since both wait equally long from now on."""
        self.scores_[r.id] = float(self.jct(r.n_input, r.n_cached_now)) + self.lam * r.arrival  # type: ignore[operator]

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """By the score at arrival."""
        return [r.id for r in sorted(waiting, key=lambda r: (self.scores_[r.id], r.arrival, r.id))]

    def on_finish(self, view: View, r: ReqView) -> Retain:
        """Forget the score."""
        del self.scores_[r.id]
        return CACHED
