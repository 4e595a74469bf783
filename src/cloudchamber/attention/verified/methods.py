"""Whole decode methods at an equal number of keys: what verified attention is compared with. Plain references for one head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .decode import Cache, VAttention
from .model import BudgetSpec, normal_quantile
from .policies.adaptive_denominator import LEAST_DEVIATION
from .policies.fixed import FixedBudget
from .populations import Population
from .scorers import ExactScores, QuestPages, _Scorer

SINK = WINDOW = 64
TOP = 0.01  # of the keys are read exactly by the methods that sample the rest


@dataclass(frozen=True, eq=False)
class Query:
    """One query of one head: q (head dimension,), keys and values (n, head dimension), float32."""

    q: np.ndarray
    keys: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, population: Population, rng: np.random.Generator, noise: float = 0.25) -> Query:
        """Keys and a query in a random direction that have a population's logits; ``noise``: deviation of the keys in other directions."""
        n, dim = population.values.shape
        towards = rng.standard_normal((dim,))
        towards /= np.sqrt(towards @ towards)
        keys = noise * rng.standard_normal((n, dim))
        keys += (population.logits - keys @ towards)[:, None] * towards
        return cls(*(each.astype(np.float32) for each in (np.sqrt(dim) * towards, keys, population.values)))

    @property
    def logits(self) -> np.ndarray:
        """True logits, float64."""
        return np.asarray(self.keys.astype(np.float64) @ self.q / np.sqrt(len(self.q)))


@dataclass(frozen=True, eq=False)
class Reading:
    """What a method computed, and the share of the keys that it read."""

    out: np.ndarray
    density: float


Method = Callable[[Query, float, int], Reading]  # at a density, with a seed


def over(query: Query, tokens: np.ndarray, weight: np.ndarray | float = 1.0) -> Reading:
    """Attention over some tokens with weights."""
    logits = query.logits[tokens]
    p = weight * np.exp(logits - logits.max())
    return Reading(p @ query.values[tokens] / p.sum(), len(tokens) / len(query.keys))


def dense(query: Query, density: float, seed: int) -> Reading:
    """Everything, whatever the density."""
    return over(query, np.arange(len(query.keys)))


def sink_window(query: Query, density: float, seed: int) -> Reading:
    """The first tokens and the latest: StreamingLLM."""
    n = len(query.keys)
    keep = max(1, round(density * n))
    sink = min(SINK, keep // 2)
    return over(query, np.r_[:sink, n - keep + sink : n])


def top_k(query: Query, density: float, seed: int, scorer: _Scorer = QuestPages()) -> Reading:  # noqa: B008  # it holds parameters only
    """The keys that a scorer prefers, beside sink and window, with weight 1."""
    return over(query, _best(query, density, scorer))


def oracle_top_k(query: Query, density: float, seed: int) -> Reading:
    """The same by the true logits."""
    return top_k(query, density, seed, ExactScores())


def oracle_top_p(query: Query, density: float, seed: int, p: float = 0.9) -> Reading:
    """As few keys as hold a share of the weight, at most those of the density."""
    logits = query.logits
    order = np.argsort(-logits, kind="stable")
    mass = np.cumsum(np.exp(logits[order] - logits.max()))
    keep = min(int(np.searchsorted(mass, p * mass[-1])) + 1, max(1, round(density * len(order))))
    return over(query, order[:keep])


def uniform(query: Query, density: float, seed: int) -> Reading:
    """Sink, window, and a uniform sample of all others."""
    return _verified(query, density, seed, 0.0)


def v_attention(query: Query, density: float, seed: int) -> Reading:
    """Sink, window, and of what is left half the best by Quest's bounds, half a sample; shrunk towards plain attention over all that."""
    return _verified(query, density, seed, max(0.0, density - (SINK + WINDOW) / len(query.keys)) / 2, shrink=True)


def v_attention_unbiased(query: Query, density: float, seed: int) -> Reading:
    """The best hundredth, and a sample that is not shrunk: the paper's estimate."""
    return _verified(query, density, seed, TOP)


def magic_pig(query: Query, density: float, seed: int, tables: int = 8, bits: int = 8) -> Reading:
    """Sampling by locality-sensitive hashing: a key is read if it shares a bucket with the query in two tables or more.

    Each is weighted by one over the probability of that, 1 - (1 - c)^L - L c (1 - c)^(L - 1) with c = (1 - angle / π)^bits. Its density
    is what the hashes make of it.
    """
    n, dim = query.keys.shape
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((dim, tables * bits)).astype(np.float32)
    keys = query.keys - query.keys.mean(axis=0)
    same = ((keys @ directions > 0) == (query.q @ directions > 0)).reshape(n, tables, bits).all(axis=2).sum(axis=1)
    cosine = keys @ query.q / (np.linalg.norm(keys, axis=1) * np.linalg.norm(query.q))
    c = (1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi) ** bits
    chance = 1 - (1 - c) ** tables - tables * c * (1 - c) ** (tables - 1)
    is_read = same >= 2
    is_read[:SINK] = is_read[n - WINDOW :] = True
    chance[:SINK] = chance[n - WINDOW :] = 1.0
    tokens = np.flatnonzero(is_read)
    return over(query, tokens, 1 / chance[tokens])


def public_code(query: Query, density: float, seed: int, spec: BudgetSpec = BudgetSpec()) -> Reading:  # noqa: B008
    """The public code of vAttention, faults and all: what it verifies is the denominator, and its density is its own.

    The pilot is drawn with replacement from all keys between sink and window, those of top-k among them; so is the sample, of
    (Φ⁻¹(1 - δ) σ̂ n_s / (ε D̂))² keys. A key drawn twice counts once, one that is in top-k too has weight 1, all others n_s / b.
    """
    n = len(query.keys)
    rng = np.random.default_rng(seed)
    certain = _best(query, (SINK + WINDOW) / n + TOP, QuestPages())
    logits = query.logits
    a = np.exp(logits - logits.max())
    n_s = n - SINK - WINDOW
    b0 = spec.pilot_keys(n_s)
    pilot = a[rng.integers(SINK, n - WINDOW, b0)]
    total = a[certain].sum() + n_s * pilot.mean()
    root = normal_quantile(1 - spec.delta) * max(float(pilot.std(ddof=1)), LEAST_DEVIATION) * n_s / (spec.epsilon * total)
    b = int(min(max(np.ceil(root**2), b0), n_s))
    chance = np.zeros(n)
    chance[rng.integers(SINK, n - WINDOW, b)] = b / n_s
    chance[certain] = 1.0
    tokens = np.flatnonzero(chance)
    return over(query, tokens, 1 / chance[tokens])


def _best(query: Query, density: float, scorer: _Scorer) -> np.ndarray:
    n = len(query.keys)
    sketch = scorer.sketch(query.keys)
    scores = np.repeat(sketch.scores(query.q[None])[0], sketch.unit)[:n]
    scores[:SINK] = scores[n - WINDOW :] = np.inf
    return np.sort(np.argsort(-scores, kind="stable")[: max(1, round(density * n))])


def _verified(query: Query, density: float, seed: int, top: float, shrink: bool = False) -> Reading:
    """A share of the rest such that all that is read has the density."""
    n = len(query.keys)
    picked = -(-round(top * n) // QuestPages().page) * QuestPages().page
    left = max(1, n - SINK - WINDOW - picked)
    share = min(1.0, max(0.0, (density * n - SINK - WINDOW - picked) / left))
    spec = BudgetSpec(floor=2, pilot=share)  # the pilot is the sample
    attention = VAttention(budget=FixedBudget(share), sink=SINK, window=WINDOW, top=top, spec=spec, shrink=shrink)
    done = attention(query.q[None], Cache.of(query.keys[None], query.values[None]), seed=seed)
    return Reading(done.out[0], int(done.read[0]) / n)


METHODS: dict[str, Method] = {
    each.__name__.replace("_", "-"): each
    for each in (dense, sink_window, top_k, oracle_top_k, oracle_top_p, uniform, v_attention, v_attention_unbiased, magic_pig, public_code)
}
