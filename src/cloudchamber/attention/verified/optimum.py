"""The least that a promise costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .coverage import clopper_pearson
from .model import BudgetSpec
from .simulator import LEVEL, errors
from .workloads import Head

COARSE, FINE = 8, 14  # sizes that are tried over the whole range, and where failures come and go


@dataclass(frozen=True, eq=False)
class Frontier:
    """What samples of a head cost, and how often they fail, by size in ascending order."""

    b: np.ndarray
    density: np.ndarray
    failure_rate: np.ndarray


def frontier(head: Head, epsilon: float) -> Frontier:
    """Failures of the head's own samples at fixed sizes from the pilot's to all keys."""
    b0 = head.pilots[0].b0
    rates: dict[int, float] = {head.n_s: 0.0}

    def look(low: int, high: int, count: int) -> None:
        for b in np.unique(np.geomspace(low, high, count).round().astype(int)).tolist():
            if b not in rates:
                rates[b] = float((errors(head, np.full(len(head.ranks), b), np.float32)[0] > epsilon).mean())

    look(b0, head.n_s, COARSE)
    tried = sorted(rates)
    sure = [b for b in tried if rates[b] > 0.99]
    safe = [b for b in tried if rates[b] < 0.01]
    look(sure[-1] if sure else b0, safe[0], FINE)
    b = np.array(sorted(rates))
    return Frontier(b, head.density(b), np.array([rates[each] for each in b.tolist()]))


def least_density(heads: Sequence[Head], spec: BudgetSpec) -> float:
    """No budget that knows the heads but not the draw has a smaller repaired density.

    Sizes may be mixed over heads and at random, so that this is a linear program: least mean density with at most a share ``allowed`` of
    failures. Its dual is maximised: any multiplier gives a bound, Σ min_b (density + multiplier · failures) - multiplier · allowed.
    Between two sizes that were tried, the density of the smaller and the failures of the larger are charged. The cap is not known to it.
    """
    allowed = most_failures(sum(len(head.ranks) for head in heads), spec.delta)
    curves = [frontier(head, spec.epsilon) for head in heads]
    best = min(float(curve.density[0]) for curve in curves)
    for multiplier in np.geomspace(1e-3, 1e3, 241):
        total = 0.0
        for curve in curves:
            later = np.append(curve.failure_rate[1:], 0.0)
            total += float((curve.density + multiplier * np.minimum(curve.failure_rate, later)).min())
        best = max(best, total / len(curves) - multiplier * allowed)
    return best


def most_failures(samples: int, delta: float) -> float:
    """The share of failures, after repair, that a budget can have at most without being charged for more."""
    k = 0
    while k < samples and clopper_pearson(k + 1, samples, LEVEL)[0] <= delta:
        k += 1
    if k == samples:
        return 1.0
    # just above, the repair leaves delta · (rate / lower limit), which falls as failures grow
    return max(k / samples, delta * (k + 1) / samples / clopper_pearson(k + 1, samples, LEVEL)[0])
