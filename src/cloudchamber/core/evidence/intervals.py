"""The 95 % interval of a ratio of sums over seeds.

Seeds are resampled, not trials: policies and workloads that share a seed share its luck. The interval is the estimate plus and minus
Student's t times the bootstrap's standard error, since the percentiles of a dozen seeds are too narrow, and longer by Johnson's (1978)
correction on the side where the resamples are skewed: a dozen costs seldom show their long tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np

from cloudchamber.core.errors import InputError

Block = tuple[tuple[int, ...], np.ndarray, np.ndarray]  # seeds; numerators and denominators by seed
RESAMPLES = 2000


def interval(blocks: Sequence[Block], level: float) -> tuple[float, float, float]:
    """Return lower limit, estimate and upper limit of a ratio of sums; blocks with the same seeds are resampled together.

    Raises
    ------
    InputError
        If the divisor's sum, or that of a resample, is not positive.
    """
    groups: dict[tuple[int, ...], np.ndarray] = {}
    for seeds, over, under in blocks:
        groups[seeds] = groups.get(seeds, 0.0) + np.column_stack([over, under])
    totals = np.sum([sums.sum(axis=0) for sums in groups.values()], axis=0)
    resampled = np.sum([_weights(len(seeds), i) @ sums for i, (seeds, sums) in enumerate(groups.items())], axis=0)
    if not (totals[1] > 0 and np.all(resampled[:, 1] > 0)):
        raise InputError("a ratio needs a positive divisor, but its sum over seeds is zero or less.")
    estimate = float(totals[0] / totals[1])
    ratios = resampled[:, 0] / resampled[:, 1]
    fewest, freedom = min(map(len, groups)), sum(len(seeds) - 1 for seeds in groups)
    t, spread = student_t(1 - level / 2, freedom), float(ratios.std()) * math.sqrt(fewest / (fewest - 1))
    third = float(((ratios - ratios.mean()) ** 3).mean())
    skew = third / float(ratios.std()) ** 3 * spread * (1 + 2 * t * t) / 6 if spread > 1e-12 * abs(estimate) else 0.0
    return estimate - t * spread + min(skew, 0.0), estimate, estimate + t * spread + max(skew, 0.0)


@lru_cache(maxsize=8)
def _weights(n: int, stream: int) -> np.ndarray:
    """Count how often each of n seeds is drawn in each resample; a fixed generator, so that a record can be recomputed bit for bit."""
    return np.random.default_rng([n, stream]).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


@cache
def student_t(p: float, freedom: int) -> float:
    """Return the p-quantile (p > 1/2) of Student's t for whole degrees of freedom, without SciPy."""
    if freedom > 1000:
        return NormalDist().inv_cdf(p)
    low, high = 0.0, 1.0
    while _t_inside(high, freedom) < 2 * p - 1:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, freedom) < 2 * p - 1 else (low, middle)
    return high


def _t_inside(t: float, freedom: int) -> float:
    """P(|T| <= t): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    is_odd = freedom % 2
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for k in range(2 if not is_odd else 3, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    return 2 / math.pi * (angle + math.sin(angle) * total) if is_odd else math.sin(angle) * total
