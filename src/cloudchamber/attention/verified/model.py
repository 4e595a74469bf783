"""The nouns of verified attention: what a pilot sample tells, and how many keys are read for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import AnyFloat, Message

Reason = Literal["floor", "clt", "capped", "dense"]
Sampling = Literal["uniform", "importance"]
SHARPNESS, DEFENCE = 0.5, 0.5  # of chances by bounds; not tuned


class BudgetSpec(Message, frozen=True):
    """What is promised, and within what limits.

    Parameters
    ----------
    epsilon : float, default 0.1
        Relative error of a head's output, ‖ô - o‖ / ‖o‖, that is to be exceeded at most with probability ``delta``.
    delta : float, default 0.1
    floor : int, default 32
        Keys of the pilot, and so of every sample, at least.
    pilot : float, default 0.02
        Share of the residual keys that the pilot takes.
    cap : float, default 1.0
        Largest share of the residual keys that may be read.

    Raises
    ------
    InputError
        If epsilon or delta is not between 0 and 1, floor below 2, pilot not in [0, 1] or cap not in (0, 1].
    """

    epsilon: float = 0.1
    delta: float = 0.1
    floor: int = 32
    pilot: float = 0.02
    cap: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} must be above 0 and below 1, got {getattr(self, name)!r}.")
        if type(self.floor) is not int or self.floor < 2:
            raise InputError(f"floor must be a whole number of at least 2 (a variance needs two), got {self.floor!r}.")
        if not 0 <= self.pilot <= 1:
            raise InputError(f"pilot must be in [0, 1], got {self.pilot!r}.")
        if not 0 < self.cap <= 1:
            raise InputError(f"cap must be above 0 and at most 1, got {self.cap!r}.")

    def pilot_keys(self, n_s: int) -> int:
        """Keys of the pilot of so many residual ones.

        Examples
        --------
        >>> BudgetSpec().pilot_keys(7772), BudgetSpec().pilot_keys(10)
        (155, 10)
        """
        return min(n_s, max(self.floor, round(self.pilot * n_s)))


class PilotStats(Message, frozen=True):
    """What the deterministic keys and a pilot sample of the residual ones tell of a head: numbers only.

    With weights a_j = exp(logit_j - m), m any shared maximum, N = Σ a_j v_j, D = Σ a_j and the output o = N / D. Every quantity is a sum
    over the residual keys or a moment of one of them; none changes if all logits are shifted, but for a factor common to all.

    Parameters
    ----------
    n, n_s : int
        Keys in all, and residual ones (those that may be sampled).
    b0 : int
        Keys of the pilot.
    head_dim : int
    denominator, numerator_norm : float
        D̂ and ‖N̂‖ with the pilot standing for the residual keys.
    variance_a : float
        Of a_j.
    trace_av, rank_av : float
        Tr C and effective rank (Tr C)² / Tr C² of C = Cov(a_j v_j).
    trace_error, rank_error : float
        The same of Cov(a_j (v_j - ô)): the first-order error of the ratio.
    radius_error : float
        Largest distance of a pilot key's a_j (v_j - ô) from their mean.
    """

    n: int
    n_s: int
    b0: int
    head_dim: int
    denominator: float
    numerator_norm: float
    variance_a: float
    trace_av: float
    rank_av: float
    trace_error: float
    rank_error: float
    radius_error: float


class BudgetDecision(Message, frozen=True):
    """How many residual keys are read, the pilot's included, and what that is worth.

    Parameters
    ----------
    b : int
    reason : {"floor", "clt", "capped", "dense"}
        What set it: fewer would have done; the rule; the rule asked for more than may be read; every key is read, which is exact.
    bound : float
        Error that the rule vouches for at this size, of the quantity it verifies; infinite where it vouches for nothing.
    """

    b: int
    reason: Reason
    bound: AnyFloat


class Budget(Protocol):
    """Decides how many residual keys a head reads. See :class:`cloudchamber.core.policy.Policy` for a base class.

    A class attribute ``sampling = "importance"`` asks for samples by :func:`chances`, with replacement, in place of uniform ones without:
    a pilot's weights are then a_j / (n_s p_j), so that every number of :class:`PilotStats` means what it meant, and ``b`` counts draws.
    """

    def reset(self, spec: BudgetSpec, rng: np.random.Generator) -> None:
        """Forget everything and learn what is promised; called once before each trial."""
        ...

    def budget(self, pilot: PilotStats, n_s: int) -> BudgetDecision:
        """Return the size of the sample from ``n_s`` residual keys: at least the pilot's, at most all."""
        ...


def sampling_of(policy: object) -> Sampling:
    """How a budget wants its samples drawn; uniformly unless it says otherwise.

    Raises
    ------
    InputError
        If it names no way of sampling.
    """
    found = getattr(policy, "sampling", "uniform")
    if found not in ("uniform", "importance"):
        raise InputError(f"sampling of a budget must be 'uniform' or 'importance', got {found!r}.")
    return "importance" if found == "importance" else "uniform"


def chances(bounds: np.ndarray) -> np.ndarray:
    """Probability of each residual key in one draw, from a bound of its logit: p = (1 - d) softmax(s · bound) + d / n_s.

    A bound is above its key's logit, often far above, so that p_j ∝ exp(bound) would spend itself on the wrong keys: hence a sharpness s
    below 1. The uniform part, d, keeps every weight 1 / (n_s p_j) below 1 / d, whatever the bounds are worth.

    Examples
    --------
    >>> chances(np.array([0.0, 0.0, 2 * np.log(4.0)])).round(3)
    array([0.25, 0.25, 0.5 ])
    """
    raised = np.exp(SHARPNESS * (bounds - bounds.max()))
    return np.asarray((1 - DEFENCE) * raised / raised.sum() + DEFENCE / len(bounds))


def settled(wanted: float, pilot: PilotStats, n_s: int, spec: BudgetSpec, error_at: Callable[[int], float]) -> BudgetDecision:
    """The decision between the pilot's size and all keys, or the cap, that is next to the size a rule wants.

    Examples
    --------
    >>> pilot = PilotStats(100, 90, 10, 4, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    >>> settled(20.5, pilot, 90, BudgetSpec(), lambda b: 1 / b)
    BudgetDecision(b=21, reason='clt', bound=0.047619047619047616)
    >>> settled(95.0, pilot, 90, BudgetSpec(cap=0.5), lambda b: 1 / b).reason
    'capped'
    """
    least = min(pilot.b0, n_s)
    most = max(least, math.floor(spec.cap * n_s))
    b = n_s if not wanted < n_s else max(least, math.ceil(wanted))
    if b > most:
        return BudgetDecision(most, "capped", error_at(most))
    if b >= n_s:
        return BudgetDecision(n_s, "dense", 0.0)
    return BudgetDecision(b, "floor" if wanted <= least else "clt", error_at(b))


@lru_cache(maxsize=1024)
def normal_quantile(p: float) -> float:
    """The p-quantile of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(p))


def spread_quantile(p: float, rank: float) -> float:
    """The p-quantile of ‖X‖² / E‖X‖² for a normal vector of so many equal directions: chi-squared over its degrees of freedom.

    By Satterthwaite, of any normal vector with that effective rank, approximately.

    Examples
    --------
    >>> round(spread_quantile(0.95, 1.0), 3), round(spread_quantile(0.95, 100.0), 3)
    (3.841, 1.243)
    """
    from scipy.special import chdtri

    h = max(rank, 1.0)
    return float(chdtri(h, 1.0 - p)) / h
