"""One decode step with a bound on its error: the important keys, a pilot, a budget, a sample, and a certificate for every head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import AnyFloat, Message
from cloudchamber.core.policy import Instance, Integer, Optional, Parameters, Real, clone

from .asking import asked
from .coverage import Coverage
from .kernel import drawn, mixed, stream, weighted
from .model import Budget, BudgetDecision, BudgetSpec, PilotStats, Reason
from .pilot import pilot_stats
from .policies.ratio import RatioBudget
from .scorers import QuestPages, Sketch, _Scorer


class Certificate(Message, frozen=True):
    """What was promised of one head's output, and on what grounds.

    Parameters
    ----------
    layer, head, step, seed : int
        They name the sample: it can be drawn again.
    n, n_s, b : int
        Keys in all, residual ones, and how many of these were read.
    reason : {"floor", "clt", "capped", "dense"}
        What set ``b``; ``capped``: fewer were read than the promise needs.
    bound : float
        Error that the budget vouches for; 0 where every key was read, infinite where it vouches for nothing.
    pilot : PilotStats or None
        What the budget saw; None where it was not asked.
    error : float or None
        The relative error, where it was checked.
    """

    layer: int
    head: int
    step: int
    seed: int
    n: int
    n_s: int
    b: int
    reason: Reason
    bound: AnyFloat
    pilot: PilotStats | None = None
    error: float | None = None


@dataclass(frozen=True, eq=False)
class Cache:
    """Where the keys and values of one sequence lie: token t of key head g in row ``rows[t] * row_stride + g * head_stride``.

    Parameters
    ----------
    keys, values : ndarray of float32, shape (rows, head dimension)
    rows : ndarray of int64, shape (tokens,)
    heads : int
        Key heads.
    row_stride, head_stride : int
    """

    keys: np.ndarray
    values: np.ndarray
    rows: np.ndarray
    heads: int
    row_stride: int = 1
    head_stride: int = 0

    @classmethod
    def of(cls, keys: np.ndarray, values: np.ndarray) -> Cache:
        """A cache of arrays of shape (key heads, tokens, head dimension).

        Raises
        ------
        InputError
            If they differ in shape, or are not so shaped.
        """
        if keys.ndim != 3 or keys.shape != values.shape:
            raise InputError(f"keys and values must have the shape (key heads, tokens, head dimension), got {keys.shape}, {values.shape}.")
        heads, n, dim = keys.shape
        k, v = (np.ascontiguousarray(each, np.float32).reshape(-1, dim) for each in (keys, values))
        return cls(k, v, np.arange(n), heads, 1, n)

    def rows_of(self, tokens: np.ndarray, group: int) -> np.ndarray:
        """Rows of some tokens of a key head."""
        return np.asarray(self.rows[tokens] * self.row_stride + group * self.head_stride)


@dataclass(frozen=True, eq=False)
class Decoded:
    """One step's result.

    Parameters
    ----------
    out : ndarray of float32, shape (heads, head dimension)
    lse : ndarray, shape (heads,)
        Log of the estimated sum of weights.
    certificates : tuple of Certificate
        One for each head.
    read : ndarray of int, shape (key heads,)
        Tokens whose key and value were read, each counted once.
    """

    out: np.ndarray
    lse: np.ndarray
    certificates: tuple[Certificate, ...]
    read: np.ndarray


class VAttention(Parameters):
    """Read what matters exactly and a sample of the rest, as large as a promise on the error needs.

    The first ``sink`` and last ``window`` tokens and those that the scorer prefers are read with weight 1; of the n_s others, b drawn
    without replacement with weight n_s / b. The pilot is the first part of the sample. A sample depends on seed, layer, head and step
    alone.

    Parameters
    ----------
    scorer : object, default QuestPages()
        One of the scorers of this module.
    budget : Budget or None, default RatioBudget()
        None: nothing is sampled, plain top-k.
    sink : int, default 128
    window : int, default 128
    top : float, default 0.02
        Share of the tokens that the scorer picks.
    spec : BudgetSpec, default BudgetSpec()
        What is promised.
    verify : float, default 0.0
        Share of the heads' steps that are compared with dense attention; ``coverage_`` counts how many broke the promise.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> keys, values = rng.standard_normal((2, 2, 4096, 32)).astype(np.float32)
    >>> attention = VAttention(spec=BudgetSpec(epsilon=0.2), verify=1.0)
    >>> done = attention(rng.standard_normal((4, 32)), Cache.of(keys, values + 1))
    >>> [each.reason for each in done.certificates], attention.coverage_.failures
    (['clt', 'clt', 'clt', 'clt'], 0)

    References
    ----------
    vAttention: Verified Sparse Attention.
    """

    _constraints = {
        "scorer": Instance(_Scorer),
        "budget": Optional(Instance(Parameters)),
        "sink": Integer(0),
        "window": Integer(0),
        "top": Real(0, 1),
        "spec": Instance(BudgetSpec),
        "verify": Real(0, 1),
    }

    def __init__(
        self,
        scorer: _Scorer = QuestPages(),  # noqa: B008  # they hold parameters only
        budget: Any = RatioBudget(),  # noqa: B008
        sink: int = 128,
        window: int = 128,
        top: float = 0.02,
        spec: BudgetSpec = BudgetSpec(),  # noqa: B008
        verify: float = 0.0,
    ) -> None:
        self.scorer = scorer
        self.budget = budget
        self.sink = sink
        self.window = window
        self.top = top
        self.spec = spec
        self.verify = verify

    def reset(self) -> None:
        """Check the parameters and forget what was counted; done before the first step."""
        self.validate()
        self.coverage_ = Coverage()
        self.budget_: Budget | None = None
        if self.budget is not None:
            self.budget_ = clone(self.budget)
            self.budget_.reset(self.spec, np.random.default_rng(0))

    def __call__(
        self,
        q: np.ndarray,
        cache: Cache,
        sketches: Sequence[Sketch] | None = None,
        *,
        layer: int = 0,
        step: int = 0,
        seed: int = 0,
        allowed: np.ndarray | None = None,
    ) -> Decoded:
        """Attend from one query for each head.

        Parameters
        ----------
        q : ndarray, shape (heads, head dimension)
        cache : Cache
        sketches : sequence of Sketch or None
            One for each key head; None: made here, which reads every key.
        layer, step, seed : int
            Name the samples.
        allowed : ndarray of bool or None, shape (tokens,)
            Tokens that may be read; the others do not exist.

        Raises
        ------
        InputError
            If a shape does not fit, no token may be read, or a number is not finite.
        CandidateError
            If the budget's answer is none.
        """
        if not hasattr(self, "coverage_"):
            self.reset()
        q = np.ascontiguousarray(q, np.float32)
        _check(q, cache, allowed)
        n, size = len(cache.rows), len(q) // cache.heads
        exists = np.ones(n, bool) if allowed is None else allowed
        if sketches is None:
            every = np.arange(n)
            sketches = [self.scorer.sketch(cache.keys[cache.rows_of(every, g)]) for g in range(cache.heads)]
        taken = np.concatenate([self._chosen(q[g * size : (g + 1) * size], sketches[g], exists) for g in range(cache.heads)])
        pools = [np.flatnonzero(exists & ~each) for each in taken]
        anyway = _attended(q, cache, [np.flatnonzero(each) for each in taken])
        names = [_Name(seed, layer, h, step) for h in range(len(q))]
        parts = [self._sampled(q[h], cache, h // size, pools[h], (anyway[0][h], float(anyway[1][h])), names[h]) for h in range(len(q))]
        rest = _attended(q, cache, [pool[part.pilot_keys : part.decision.b] for pool, part in zip(pools, parts, strict=True)])
        out, lse = np.empty_like(q), np.empty(len(q))
        for h, part in enumerate(parts):
            weight = math.log(len(pools[h]) / part.decision.b) if part.decision.b else 0.0
            out[h], lse[h] = merged(((anyway[0][h], anyway[1][h]), (part.out, part.lse + weight), (rest[0][h], rest[1][h] + weight)))
            taken[h, pools[h][: part.decision.b]] = True
        if not np.isfinite(out).all():
            raise InputError("the output is not finite: there is a NaN or an infinity among the queries, keys or values that were read.")
        certificates = tuple(
            part.certificate(name, n, len(pool), self._verified(q, cache, exists, out, name))
            for name, part, pool in zip(names, parts, pools, strict=True)
        )
        return Decoded(out, lse, certificates, taken.reshape(cache.heads, size, n).any(axis=1).sum(axis=1))

    def _chosen(self, q: np.ndarray, sketch: Sketch, exists: np.ndarray) -> np.ndarray:
        """Tokens that a group's heads read for certain, (heads, tokens)."""
        n = len(exists)
        taken = np.zeros((len(q), n), bool)
        taken[:, : self.sink] = taken[:, max(0, n - self.window) :] = True
        first, last = min(self.sink, n) // sketch.unit, -(-max(0, n - self.window) // sketch.unit)
        count = min(max(0, last - first), math.ceil(self.top * n / sketch.unit))
        if count:
            scores = sketch.scores(q)[:, first:last]
            if not exists.all():
                per_unit = np.logical_or.reduceat(exists, np.arange(0, n, sketch.unit))
                scores = np.where(per_unit[first:last], scores, -np.inf)
            best = first + np.argpartition(-scores, count - 1, axis=1)[:, :count]
            tokens = (best[:, :, None] * sketch.unit + np.arange(sketch.unit)).reshape(len(q), -1)
            np.put_along_axis(taken, np.minimum(tokens, n - 1), True, axis=1)
        return np.asarray(taken & exists)

    def _sampled(self, q: np.ndarray, cache: Cache, group: int, pool: np.ndarray, anyway: tuple[np.ndarray, float], name: _Name) -> _Part:
        """Draw the pilot, decide, and draw the rest: the sample comes to stand first in the pool."""
        n_s = len(pool)
        if self.budget_ is None or n_s < 2:  # nothing to sample, or nothing to estimate a variance from
            decision = BudgetDecision(0, "capped", math.inf) if self.budget_ is None and n_s else BudgetDecision(n_s, "dense", 0.0)
            return _Part(decision, None, 0, np.zeros_like(q), -math.inf)
        b0, state = self.spec.pilot_keys(n_s), stream(*name)
        drawn(pool, 0, b0, state)
        rows = cache.rows_of(pool[:b0], group)
        logits, v = cache.keys[rows] @ q / np.float32(math.sqrt(len(q))), cache.values[rows]
        shift = max(anyway[1], float(logits.max()))  # one maximum for the deterministic keys and the pilot
        a, mass = np.exp(logits - np.float32(shift)), math.exp(anyway[1] - shift)
        if not np.isfinite(a).all():
            raise InputError("a logit is not finite: there is a NaN or an infinity among the queries and keys that were read.")
        (stats,) = pilot_stats(a[None], v[None], anyway[0][None] * np.float32(mass), np.array([mass]), n_s, len(cache.rows))
        decision = asked(self.budget_, stats, n_s, self.spec)
        drawn(pool, b0, decision.b, state)
        total = float(a.sum())
        out = a @ v / total if total else np.zeros_like(q)
        return _Part(decision, stats, b0, out, shift + math.log(total) if total else -math.inf)

    def _verified(self, q: np.ndarray, cache: Cache, exists: np.ndarray, out: np.ndarray, name: _Name) -> float | None:
        """The relative error of a head, in a share of steps that the sample's own name decides."""
        if mixed(stream(*name) + 1) >= self.verify * 2**64:
            return None
        head = name.head
        rows = cache.rows_of(np.flatnonzero(exists), head // (len(q) // cache.heads))
        true = weighted(q[head : head + 1], cache.keys, cache.values, np.array([0, len(rows)]), rows)[0][0]
        error = float(np.linalg.norm(out[head] - true) / np.linalg.norm(true))
        self.coverage_.add(failed=error > self.spec.epsilon)
        return error


class _Name(NamedTuple):
    """What a head's sample is drawn from, in the order of :func:`stream`."""

    seed: int
    layer: int
    head: int
    step: int


@dataclass(frozen=True, eq=False)
class _Part:
    """A head's sample: the decision, and attention over the pilot."""

    decision: BudgetDecision
    stats: PilotStats | None
    pilot_keys: int
    out: np.ndarray
    lse: float

    def certificate(self, name: _Name, n: int, n_s: int, error: float | None) -> Certificate:
        """What it is worth."""
        made = self.decision
        return Certificate(name.layer, name.head, name.step, name.seed, n, n_s, made.b, made.reason, made.bound, self.stats, error)


def dense(q: np.ndarray, cache: Cache) -> np.ndarray:
    """Attention over every token, (heads, head dimension)."""
    q = np.ascontiguousarray(q, np.float32)
    return _attended(q, cache, [np.arange(len(cache.rows))] * len(q))[0]


def merged(states: Sequence[tuple[np.ndarray, float]]) -> tuple[np.ndarray, float]:
    """Output and log-sum of the union of disjoint sets of keys, from each one's."""
    top = max(float(lse) for _, lse in states)
    weights = [math.exp(lse - top) for _, lse in states]
    total = sum(weights)
    return np.asarray(sum(w * out for w, (out, _) in zip(weights, states, strict=True)) / total), top + math.log(total)


def _attended(q: np.ndarray, cache: Cache, tokens: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Attention of each head to tokens of its own."""
    size = len(q) // cache.heads
    indptr = np.zeros(len(q) + 1, np.int64)
    np.cumsum([len(each) for each in tokens], out=indptr[1:])
    return weighted(q, cache.keys, cache.values, indptr, np.concatenate([cache.rows_of(t, h // size) for h, t in enumerate(tokens)]))


def _check(q: np.ndarray, cache: Cache, allowed: np.ndarray | None) -> None:
    n, dim = len(cache.rows), cache.keys.shape[1]
    if q.ndim != 2 or q.shape[1] != dim or not len(q) or len(q) % cache.heads:
        raise InputError(f"q must have the shape (heads, {dim}) with a multiple of {cache.heads} heads, got {q.shape}.")
    if not np.isfinite(q).all():
        raise InputError("q holds a NaN or an infinity.")
    if allowed is not None and (allowed.shape != (n,) or allowed.dtype != bool):
        raise InputError(f"allowed must be booleans of shape ({n},), got {allowed.dtype} of {allowed.shape}.")
    if not n or (allowed is not None and not allowed.any()):
        raise InputError("there is no token to attend to.")
