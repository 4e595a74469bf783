"""The least that a promise costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from .coverage import clopper_pearson
from .model import BudgetSpec, Sampling
from .simulator import LEVEL, errors
from .workloads import Head

COARSE, FINE = 8, 14  # sizes that are tried over the whole range, and where failures come and go


@dataclass(frozen=True, eq=False)
class Frontier:
    """What samples of a head cost, and how often they fail, by size in ascending order."""

    b: np.ndarray
    density: np.ndarray
    failure_rate: np.ndarray

    @property
    def least_failures(self) -> np.ndarray:
        """Of any size from each one that was tried up to the next."""
        return np.asarray(np.minimum(self.failure_rate, np.append(self.failure_rate[1:], 0.0)))


def frontier(head: Head, epsilon: float, sampling: Sampling = "uniform") -> Frontier:
    """Failures of the head's own samples at fixed sizes from the pilot's to all keys."""
    b0 = head.pilots[0].b0
    rates: dict[int, float] = {head.n_s: 0.0}

    def look(low: int, high: int, count: int) -> None:
        for b in np.unique(np.geomspace(low, high, count).round().astype(int)).tolist():
            if b not in rates:
                rates[b] = float((errors(head, np.full(len(head.ranks), b), np.float32, sampling)[0] > epsilon).mean())

    look(b0, head.n_s, COARSE)
    tried = sorted(rates)
    sure = [b for b in tried if rates[b] > 0.99]
    safe = [b for b in tried if rates[b] < 0.01]
    look(sure[-1] if sure else b0, safe[0], FINE)
    b = np.array(sorted(rates))
    density = [float(head.density(np.full(len(head.ranks), each), sampling).mean()) for each in b.tolist()]
    return Frontier(b, np.array(density), np.array([rates[each] for each in b.tolist()]))


def least_density(heads: Sequence[Head], spec: BudgetSpec) -> float:
    """No budget that knows the heads but not the draw has a smaller repaired density.

    Sizes and ways of sampling may be mixed over heads and at random, so that this is a linear program: least mean density with at most a
    share ``allowed`` of failures. Its dual is maximised: any multiplier gives a bound, Σ min_b (density + multiplier · failures) -
    multiplier · allowed. Between two sizes that were tried, the density of the smaller and the failures of the larger are charged. The cap
    is not known to it.
    """
    allowed = most_failures(sum(len(head.ranks) for head in heads), spec.delta)
    ways = [[frontier(head, spec.epsilon, each) for each in get_args(Sampling)] for head in heads]
    best = min(float(curve.density[0]) for curves in ways for curve in curves)
    for multiplier in np.geomspace(1e-3, 1e3, 241):
        total = 0.0
        for curves in ways:
            total += min(float((curve.density + multiplier * curve.least_failures).min()) for curve in curves)
        best = max(best, total / len(ways) - multiplier * allowed)
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
