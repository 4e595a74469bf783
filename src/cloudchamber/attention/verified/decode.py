"""One decode step with a bound on its error: the important keys, a pilot, a budget, a sample, and a certificate for every head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import AnyFloat, Message
from cloudchamber.core.policy import Choice, Instance, Integer, Optional, Parameters, Real, clone

from .asking import asked
from .coverage import Coverage
from .kernel import drawn, mixed, stream, uniforms, weighted
from .model import Budget, BudgetDecision, BudgetSpec, PilotStats, Reason, Sampling, chances, sampling_of
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
    expect : callable or None
        Told the rows that are read next, so that they can be fetched from far away together.
    """

    keys: np.ndarray
    values: np.ndarray
    rows: np.ndarray
    heads: int
    row_stride: int = 1
    head_stride: int = 0
    expect: Callable[[np.ndarray], None] | None = None

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
    tokens : ndarray of bool, shape (key heads, tokens)
        Those whose key and value were read.
    """

    out: np.ndarray
    lse: np.ndarray
    certificates: tuple[Certificate, ...]
    tokens: np.ndarray

    @property
    def read(self) -> np.ndarray:
        """Tokens that were read, each counted once, (key heads,)."""
        return np.asarray(self.tokens.sum(axis=1))


class VAttention(Parameters):
    """Read what matters exactly and a sample of the rest, as large as a promise on the error needs.

    The first ``sink`` and last ``window`` tokens and those that the scorer prefers are read with weight 1; of the n_s others, b drawn
    without replacement with weight n_s / b. A budget whose ``sampling`` is "importance" has its keys drawn by :func:`chances` of the
    scorer's bounds instead, with replacement and weight 1 / (b p). The pilot is the first part of the sample. A sample depends on seed,
    layer, head and step alone.

    The sums N̂ and D̂ so estimated are unbiased, but at a small budget their quotient o' is noisy: where values have nothing to do with
    keys any keys will do, and the plain softmax o'' over all that was read is nearer to the truth. ``shrink`` mixes them,
    o = o'' + λ (o' - o''), with the λ of least expected squared error, which the sample itself tells:
    λ = max(0, 1 - (V + C) / ‖o' - o''‖²), V the variance of o' - o'' and C its covariance with o''. What top-k alone would get wrong makes
    the distance, and so λ, large. ``lse`` stays that of D̂. Samples by importance are not shrunk.

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
    shrink : bool, default False
        Mix the estimate with plain attention over what was read.
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
        "shrink": Choice(False, True),
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
        shrink: bool = False,
        verify: float = 0.0,
    ) -> None:
        self.scorer = scorer
        self.budget = budget
        self.sink = sink
        self.window = window
        self.top = top
        self.spec = spec
        self.shrink = shrink
        self.verify = verify

    def reset(self) -> None:
        """Check the parameters and forget what was counted; done before the first step."""
        self.validate()
        self.coverage_ = Coverage()
        self.budget_: Budget | None = None
        self.sampling_: Sampling = sampling_of(self.budget)
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
        chosen = [self._chosen(q[g * size : (g + 1) * size], sketches[g], exists) for g in range(cache.heads)]
        taken = np.concatenate([each for each, _ in chosen])
        pools = [np.flatnonzero(exists & ~each) for each in taken]
        anyway = _attended(q, cache, [np.flatnonzero(each) for each in taken])
        names = [_Name(seed, layer, h, step) for h in range(len(q))]
        parts = []
        for h, pool in enumerate(pools):
            odds = None
            if self.sampling_ == "importance" and len(pool):
                odds = chances(chosen[h // size][1][h % size, pool // sketches[h // size].unit] / math.sqrt(len(q[h])))
            parts.append(self._sampled(q[h], cache, h // size, pool, odds, (anyway[0][h], float(anyway[1][h])), names[h]))
        rest = _attended(q, cache, [part.rest for part in parts], [part.bias for part in parts])
        out, lse = np.empty_like(q), np.empty(len(q))
        for h, part in enumerate(parts):
            sample = merged((part.state, (rest[0][h], float(rest[1][h])))) if part.decision.b else part.state
            fixed = anyway[0][h], float(anyway[1][h])
            out[h], lse[h] = merged((fixed, (sample[0], sample[1] + part.weight)))
            if self.shrink and part.moments is not None and part.weight > 0:
                plain = merged((fixed, sample))
                out[h] = part.moments.mixed((out[h], lse[h]), plain, part.weight, part.decision.b, len(pools[h]))
            taken[h, part.read] = True
        if not np.isfinite(out).all():
            raise InputError("the output is not finite: there is a NaN or an infinity among the queries, keys or values that were read.")
        certificates = tuple(
            part.certificate(name, n, len(pool), self._verified(q, cache, exists, out, name))
            for name, part, pool in zip(names, parts, pools, strict=True)
        )
        return Decoded(out, lse, certificates, np.asarray(taken.reshape(cache.heads, size, n).any(axis=1)))

    def _chosen(self, q: np.ndarray, sketch: Sketch, exists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that a group's heads read for certain, (heads, tokens), and the scores of all units where they are needed."""
        if self.sampling_ == "importance" and not sketch.bounds_logits:
            raise InputError(f"{type(self.budget).__name__} needs bounds of logits: QuestPages or ExactScores, not {self.scorer!r}.")
        n = len(exists)
        taken = np.zeros((len(q), n), bool)
        taken[:, : self.sink] = taken[:, max(0, n - self.window) :] = True
        first, last = min(self.sink, n) // sketch.unit, -(-max(0, n - self.window) // sketch.unit)
        count = min(max(0, last - first), math.ceil(self.top * n / sketch.unit))
        every = sketch.scores(q) if count or self.sampling_ == "importance" else np.zeros((len(q), 0), np.float32)
        if count:
            scores = every[:, first:last]
            if not exists.all():
                per_unit = np.logical_or.reduceat(exists, np.arange(0, n, sketch.unit))
                scores = np.where(per_unit[first:last], scores, -np.inf)
            best = first + np.argpartition(-scores, count - 1, axis=1)[:, :count]
            tokens = (best[:, :, None] * sketch.unit + np.arange(sketch.unit)).reshape(len(q), -1)
            np.put_along_axis(taken, np.minimum(tokens, n - 1), True, axis=1)
        return np.asarray(taken & exists), every

    def _sampled(
        self,
        q: np.ndarray,
        cache: Cache,
        group: int,
        pool: np.ndarray,
        odds: np.ndarray | None,
        anyway: tuple[np.ndarray, float],
        name: _Name,
    ) -> _Part:
        """Draw the pilot, decide, and draw the rest. A uniform sample comes to stand first in the pool."""
        n_s = len(pool)
        if self.budget_ is None or n_s < 2:  # nothing to sample, or nothing to estimate a variance from
            decision = BudgetDecision(0, "capped", math.inf) if self.budget_ is None and n_s else BudgetDecision(n_s, "dense", 0.0)
            return _Part(decision, pool[: decision.b], pool[: decision.b], (np.zeros_like(q), -math.inf))
        b0, state = self.spec.pilot_keys(n_s), stream(*name)
        first = _drawn(pool, odds, 0, b0, state)
        rows = cache.rows_of(pool[first], group)
        if cache.expect is not None:
            cache.expect(rows)
        logits, v = cache.keys[rows] @ q / np.float32(math.sqrt(len(q))), cache.values[rows]
        if odds is not None:
            logits = logits - np.log(n_s * odds[first]).astype(np.float32)
        shift = max(anyway[1], float(logits.max()))  # one maximum for the deterministic keys and the pilot
        a, mass = np.exp(logits - np.float32(shift)), math.exp(anyway[1] - shift)
        if not np.isfinite(a).all():
            raise InputError("a logit is not finite: there is a NaN or an infinity among the queries and keys that were read.")
        (stats,) = pilot_stats(a[None], v[None], anyway[0][None] * np.float32(mass), np.array([mass]), n_s, len(cache.rows))
        decision = asked(self.budget_, stats, n_s, self.spec)
        if odds is not None and decision.b == n_s:  # everything, each key once, and no draw
            return _Part(decision, pool, pool, (np.zeros_like(q), -math.inf), stats=stats)
        later = _drawn(pool, odds, b0, decision.b, state)
        total = float(a.sum())
        held = (a @ v / total, shift + math.log(total)) if total else (np.zeros_like(q), -math.inf)
        read, bias = pool[: decision.b], None
        if odds is not None:
            read, bias = pool[np.union1d(first, later)], -np.log(n_s * odds[later]).astype(np.float32)
        moments = _Moments.of(a, v, shift, stats) if self.shrink and odds is None else None
        return _Part(decision, read, pool[later], held, bias, math.log(n_s / decision.b), stats, moments)

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
class _Moments:
    """Of a pilot's a and a v: what the variances of both quotients are made of. ``a`` is exp(logit - shift)."""

    shift: float
    trace: float
    cross: np.ndarray
    variance: float

    @classmethod
    def of(cls, a: np.ndarray, v: np.ndarray, shift: float, stats: PilotStats) -> _Moments:
        """From weights (pilot,) and values (pilot, head dimension)."""
        return cls(shift, stats.trace_av, ((a - a.mean()) * a) @ v / np.float32(len(a) - 1), stats.variance_a)

    def mixed(self, estimate: tuple[np.ndarray, float], plain: tuple[np.ndarray, float], weight: float, b: int, n_s: int) -> np.ndarray:
        """The mixture of least expected squared error. To first order a key's part in each quotient is c a (v - o), c = weight / sum."""
        ours, theirs = math.exp(weight + self.shift - estimate[1]), math.exp(self.shift - plain[1])
        apart = estimate[0] - plain[0]
        # a key's part in their difference is a (factor v - offset), and in plain attention theirs · a (v - plain)
        factor, offset = ours - theirs, ours * estimate[0] - theirs * plain[0]
        spread = factor**2 * self.trace - 2 * factor * offset @ self.cross + offset @ offset * self.variance
        shared = factor * self.trace - (factor * plain[0] + offset) @ self.cross + plain[0] @ offset * self.variance
        noise = b * (1 - b / n_s) * float(spread + theirs * shared)
        distance = float(apart @ apart)
        share = min(1.0, max(0.0, 1 - noise / distance)) if distance > 0 else 0.0
        return np.asarray(plain[0] + np.float32(share) * apart)


@dataclass(frozen=True, eq=False)
class _Part:
    """A head's sample: the decision, tokens that it read, those after the pilot with logs of their weights, attention over the pilot.

    ``weight``: log of what every draw counts for.
    """

    decision: BudgetDecision
    read: np.ndarray
    rest: np.ndarray
    state: tuple[np.ndarray, float]
    bias: np.ndarray | None = None
    weight: float = 0.0
    stats: PilotStats | None = None
    moments: _Moments | None = None

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


def _drawn(pool: np.ndarray, odds: np.ndarray | None, start: int, stop: int, state: int) -> np.ndarray:
    """Places in the pool of a sample's draws from ``start`` to ``stop``; uniform ones are first put there."""
    if odds is None:
        drawn(pool, start, stop, state)
        return np.arange(start, stop)
    edges = np.cumsum(odds)
    found = np.searchsorted(edges, uniforms(stop - start, start, state) * edges[-1], side="right")
    return np.asarray(np.minimum(found, len(pool) - 1))


def _attended(
    q: np.ndarray, cache: Cache, tokens: Sequence[np.ndarray], biases: Sequence[np.ndarray | None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Attention of each head to tokens of its own, with the logs of their weights where they have any."""
    size = len(q) // cache.heads
    indptr = np.zeros(len(q) + 1, np.int64)
    np.cumsum([len(each) for each in tokens], out=indptr[1:])
    rows = np.concatenate([cache.rows_of(t, h // size) for h, t in enumerate(tokens)])
    bias = None
    if biases is not None and any(each is not None for each in biases):
        bias = np.concatenate([np.zeros(len(t), np.float32) if each is None else each for t, each in zip(tokens, biases, strict=True)])
    if cache.expect is not None:
        cache.expect(rows)
    return weighted(q, cache.keys, cache.values, indptr, rows, bias)


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
