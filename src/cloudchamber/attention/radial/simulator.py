"""The verified world of band rules: what the bands cost, and what they miss of a field."""

from __future__ import annotations

from typing import Any

import numpy as np

from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError

from .fields import Field
from .model import RadialSpec, count


def run(policy: Any, spec: RadialSpec, rng: np.random.Generator) -> np.ndarray:
    """Ask for the band of every distance, and return its whole tokens, (frames,).

    Raises
    ------
    CandidateError
        If an answer is no number or boolean, or the bands exceed the budget.
    """
    policy.reset(spec, rng)
    f, s = spec.frames, spec.tokens
    widths = np.zeros(f, np.int64)
    for d in range(f):
        keep = ask(policy.keep, d)
        if type(keep) is not bool:
            raise CandidateError(f"keep({d}) must return True or False, got {keep!r}", "type")
        if keep:
            width = ask(policy.width, d, f, s)
            if type(width) not in (int, float) or not np.isfinite(width) or width < 0:
                raise CandidateError(f"width({d}, {f}, {s}) must return a finite number of at least 0, got {width!r}", "type")
            widths[d] = min(int(width), s)
    widths[0] = max(widths[0], 1)
    pairs, most = count(widths, f, s, sink=spec.sink), spec.density * (f * s) ** 2
    if pairs > most * (1 + 1e-9):
        raise CandidateError(f"the bands read {pairs:,} pairs, the budget is {int(most):,}; make them narrower", "type")
    return widths


def l1_error(widths: np.ndarray, field: Field) -> np.ndarray:
    """Distance (L1) of attention over what is read from dense attention, averaged over queries: (heads,).

    With weights p and the share r of them read, each is scaled to p / r: (1/r - 1) r on what is read, 1 - r on the rest.
    """
    return np.asarray(2 * (1 - field.recall(widths)))
