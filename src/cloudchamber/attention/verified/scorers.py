"""Cheap estimates of which keys a query prefers, from sketches of the keys that are made once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cloudchamber.core.policy import Integer, Parameters


@dataclass(frozen=True, eq=False)
class Sketch:
    """What is kept of one head's keys.

    Parameters
    ----------
    scores : callable
        From queries (heads, head dimension) to scores (heads, units), higher for keys that matter more; they need not be logits.
    unit : int
        Keys that share a score.
    size_bytes : int
        What is read to score.
    bounds_logits : bool, default False
        Whether no key's product with the query is above its score.
    """

    scores: Callable[[np.ndarray], np.ndarray]
    unit: int
    size_bytes: int
    bounds_logits: bool = False


class _Scorer(Parameters, ABC):
    """Ranks keys for a query."""

    @abstractmethod
    def sketch(self, keys: np.ndarray) -> Sketch:
        """Return the sketch of keys, shape (n, head dimension)."""


class ExactScores(_Scorer):
    """The true logits: costs as much as reading every key. The oracle of the others."""

    def sketch(self, keys: np.ndarray) -> Sketch:
        """The keys themselves."""
        return Sketch(lambda q: q @ keys.T, 1, keys.nbytes, True)


class QuestPages(_Scorer):
    """The largest logit that any key between a page's least and greatest could have.

    Parameters
    ----------
    page : int, default 16
        Keys of a page.

    References
    ----------
    Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference.
    """

    _constraints = {"page": Integer(1)}

    def __init__(self, page: int = 16) -> None:
        self.page = page

    def sketch(self, keys: np.ndarray) -> Sketch:
        """Least and greatest of each channel for each page."""
        starts = np.arange(0, len(keys), self.page)
        low, high = (np.ascontiguousarray(each.reduceat(keys, starts, axis=0)) for each in (np.minimum, np.maximum))
        return page_sketch(low, high, self.page)


def page_sketch(low: np.ndarray, high: np.ndarray, page: int) -> Sketch:
    """Sketch of pages whose bounds are known, (pages, head dimension) each."""
    return Sketch(lambda q: np.maximum(q, 0) @ high.T + np.minimum(q, 0) @ low.T, page, low.nbytes + high.nbytes, True)


class DoubleSparsity(_Scorer):
    """The logits over the channels that matter most, which are the same for all queries.

    Parameters
    ----------
    channels : int, default 16
        Of those with the largest mean square of the keys.

    References
    ----------
    Post-Training Sparse Attention with Double Sparsity.
    """

    _constraints = {"channels": Integer(1)}

    def __init__(self, channels: int = 16) -> None:
        self.channels = channels

    def sketch(self, keys: np.ndarray) -> Sketch:
        """The chosen channels, side by side."""
        chosen = np.sort(np.argsort(-np.square(keys).mean(axis=0), kind="stable")[: self.channels])
        label = np.ascontiguousarray(keys[:, chosen])
        return Sketch(lambda q: q[:, chosen] @ label.T, 1, label.nbytes)


class RandomProjection(_Scorer):
    """How many of some random directions see a key, without the keys' mean, and the query on the same side.

    Parameters
    ----------
    bits : int, default 64
        Directions.
    seed : int, default 0
        Of the directions.

    References
    ----------
    Similarity Estimation Techniques from Rounding Algorithms.
    """

    _constraints = {"bits": Integer(1), "seed": Integer(0)}

    def __init__(self, bits: int = 64, seed: int = 0) -> None:
        self.bits = bits
        self.seed = seed

    def sketch(self, keys: np.ndarray) -> Sketch:
        """Signs of the projections, as +1 and -1: their product with the query's counts sides that agree. A bit each where packed."""
        directions = np.random.default_rng(self.seed).standard_normal((keys.shape[1], self.bits)).astype(np.float32)
        signs = np.where((keys - keys.mean(axis=0)) @ directions > 0, np.float32(1), np.float32(-1))
        return Sketch(lambda q: np.sign(q @ directions) @ signs.T, 1, len(keys) * -(-self.bits // 8))


class PQ(_Scorer):
    """Product quantisation: keys cut into parts, each part replaced by the nearest of a few centroids; scores are sums of table entries.

    Parameters
    ----------
    parts : int, default 16
        Runs of neighbouring channels.
    centroids : int, default 16
        Of each part.
    rounds : int, default 4
        Of k-means.

    References
    ----------
    PQCache: Product Quantization-based KVCache for Long Context LLM Inference.
    """

    _constraints = {"parts": Integer(1), "centroids": Integer(1, 256), "rounds": Integer(0)}

    def __init__(self, parts: int = 16, centroids: int = 16, rounds: int = 4) -> None:
        self.parts = parts
        self.centroids = centroids
        self.rounds = rounds

    def sketch(self, keys: np.ndarray) -> Sketch:
        """K-means of each part, from keys spread evenly over the context."""
        runs = np.array_split(np.arange(keys.shape[1]), min(self.parts, keys.shape[1]))
        start = np.unique(np.linspace(0, len(keys) - 1, self.centroids).astype(int))
        books, codes = [], np.empty((len(runs), len(keys)), np.uint8)
        for part, run in enumerate(runs):
            x, book = keys[:, run], keys[start][:, run].copy()
            for _ in range(self.rounds):
                nearest = _nearest(x, book)
                count = np.bincount(nearest, minlength=len(book))
                sums = np.stack([np.bincount(nearest, column, minlength=len(book)) for column in x.T], axis=1)
                book[count > 0] = sums[count > 0] / count[count > 0, None]
            books.append(book)
            codes[part] = _nearest(x, book)

        def scores(q: np.ndarray) -> np.ndarray:
            found = np.zeros((len(q), len(keys)), np.float32)
            for run, book, code in zip(runs, books, codes, strict=True):
                found += (q[:, run] @ book.T)[:, code]
            return found

        return Sketch(scores, 1, codes.nbytes)


def _nearest(x: np.ndarray, book: np.ndarray) -> np.ndarray:
    return np.asarray((np.square(book).sum(axis=1) - 2 * (x @ book.T)).argmin(axis=1))
