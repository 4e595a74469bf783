"""Shortest job first, looked at again before every dispatch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloudchamber.core.policy import Instance, Parameters, Real
from cloudchamber.engine.model import ReqView, View
from cloudchamber.engine.prefillonly.policies.jct import MissTokens
from cloudchamber.engine.prefillonly.policies.keeping import SuffixDiscard, _Keeping, columns


class CalibratedSJF(_Keeping):
    """Serve the request with the least score = jct(n_input, n_cached now) - lam · seconds waited; of equal ones the earlier.

    What is cached is looked up anew each time: a request whose prefix was just computed moves to the front, one whose prefix was
    evicted moves back. With ``lam`` above 0 nobody starves: who arrives more than jct(n_input, 0) / lam seconds after r, comes after r.

    Parameters
    ----------
    lam : float, default 500.0
        What a second of waiting is worth, in the unit of ``jct`` (with :class:`MissTokens`: tokens). 0 orders by length alone, a very
        large one by arrival alone.
    jct : JCT, default MissTokens()
    prefix_keep : PrefixKeep, default SuffixDiscard()

    Reference: "PrefillOnly: An Inference Engine for Prefill-only Workloads in Large Language Model Applications".

    Examples
    --------
    >>> CalibratedSJF(lam=0)
    CalibratedSJF(lam=0)
    """

    _constraints = {"lam": Real(0, 1e15), "jct": Instance(Parameters), "prefix_keep": Instance(Parameters)}

    def __init__(self, lam: float = 500.0, jct: Parameters = MissTokens(), *, prefix_keep: Parameters = SuffixDiscard()) -> None:  # noqa: B008
        self.lam = lam
        self.jct = jct
        self.prefix_keep = prefix_keep

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """By score."""
        ids, arrival, n_input, n_cached = columns(waiting)
        score = self.jct(n_input, n_cached) - self.lam * (view.now - arrival)  # type: ignore[operator]
        found: list[int] = ids[np.lexsort((ids, arrival, score))].tolist()
        return found
