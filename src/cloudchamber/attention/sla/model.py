"""The nouns of SLA: scores between blocks, how alike the tokens of a block are, and which blocks are critical, marginal or negligible."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from cloudchamber.attention.model import kept
from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message

CRITICAL, MARGINAL, NEGLIGIBLE = 1, 0, -1


class RouteSpec(Message, frozen=True):
    """What a policy knows before the trial.

    Parameters
    ----------
    critical : int
        Key blocks that a query block may read in full, on average over the query blocks of a head.
    negligible : int
        Key blocks of a query block that the paper's rule gives up, the linear branch included: a custom, not a limit.
    heads : int
        Heads that will be asked about, one after another.
    future : ndarray of shape (heads, query blocks, key blocks), or None
        True attention between the blocks of every head, for policies of the package that are marked clairvoyant.
    """

    critical: int
    negligible: int
    heads: int
    future: np.ndarray | None = None


class RouteView(Message, frozen=True):
    """One head.

    Parameters
    ----------
    scores : ndarray, shape (query blocks, key blocks)
        Scaled products of mean queries and mean keys, after the mean of all keys was taken away: no row's softmax changes by that.
    q_similarity : ndarray, shape (query blocks,)
        Mean cosine of pairs of queries of a block: 1 where all point the same way. A block of one token has 1.
    k_similarity : ndarray, shape (key blocks,)
        The same of keys, after the mean of all keys was taken away.
    q_sizes, k_sizes : ndarray of int
        Tokens of each block.
    """

    scores: np.ndarray
    q_similarity: np.ndarray
    k_similarity: np.ndarray
    q_sizes: np.ndarray
    k_sizes: np.ndarray


class Routes(Message, frozen=True):
    """The answer: 1 critical, 0 marginal, -1 negligible, int8 of shape (query blocks, key blocks).

    At least one block of a row must be critical, and at most ``critical`` of them on average.
    """

    labels: np.ndarray


class BlockRoute(Protocol):
    """Decides how each query block treats each key block. See :class:`cloudchamber.core.policy.Policy` for a base class."""

    def reset(self, spec: RouteSpec, rng: np.random.Generator) -> None:
        """Forget everything; called once before each trial."""
        ...

    def route(self, view: RouteView) -> Routes:
        """Return the labels of one head."""
        ...


def counts(k_h: float, k_l: float, blocks: int, *, strict: bool = False) -> tuple[int, int]:
    """Critical and negligible key blocks of a row: whole blocks of each share, but at least one critical, which comes first.

    Raises
    ------
    InputError
        If ``strict`` and the share of critical blocks is less than one block.

    Examples
    --------
    >>> counts(0.05, 0.1, 128), counts(0.05, 0.1, 8), counts(1.0, 0.1, 8)
    ((6, 12), (1, 0), (8, 0))
    """
    critical = math.floor(round(k_h * blocks, 9))
    if strict and critical < 1:
        raise InputError(
            f"k_h = {k_h:g} of {blocks} key blocks is less than one; raise k_h to {1 / max(blocks, 1):.3g}, or use smaller blocks."
        )
    critical = max(1, critical)
    return critical, min(math.floor(round(k_l * blocks, 9)), max(blocks - critical, 0))


def labelled(critical: np.ndarray, scores: np.ndarray, negligible: int) -> np.ndarray:
    """Labels from the critical blocks; of the others the ``negligible`` least scores of each row are negligible.

    Examples
    --------
    >>> labelled(np.array([[True, False, False]]), np.array([[3.0, 1.0, 2.0]]), 1)
    array([[ 1, -1,  0]], dtype=int8)
    """
    labels = critical.astype(np.int8)
    labels[kept(np.where(critical, -np.inf, -scores), negligible) & ~critical] = NEGLIGIBLE
    return labels


def estimate(view: RouteView) -> np.ndarray:
    """Attention between blocks as the scores have it: a softmax of each row, weighted by the blocks' sizes."""
    scores = view.scores + np.log(np.maximum(view.k_sizes, 1e-9))
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def ahead(prob: np.ndarray) -> np.ndarray:
    """For each entry of a row the sum of those that come before it in descending order; 0 for the largest.

    Examples
    --------
    >>> ahead(np.array([[0.25, 0.5, 0.25]])).tolist()
    [[0.5, 0.0, 0.75]]
    """
    order = np.argsort(-prob, axis=1, kind="stable")
    ranked = np.take_along_axis(prob, order, axis=1)
    found = np.empty_like(prob)
    np.put_along_axis(found, order, np.cumsum(ranked, axis=1) - ranked, axis=1)
    return found


def within(rank: np.ndarray, allowed: np.ndarray, total: int) -> np.ndarray:
    """The ``total`` allowed entries of least rank, the least of each row always among them.

    With what is :func:`ahead` as rank this is top-p, with the p that the budget gives.
    """
    order = np.where(allowed, rank, np.inf)
    np.put_along_axis(order, rank.argmin(axis=1)[:, None], -np.inf, axis=1)
    mask = np.zeros(rank.shape, bool)
    mask.ravel()[np.argsort(order, axis=None, kind="stable")[:total]] = True
    return mask & (order < np.inf)


def leanest(mass: np.ndarray, keep: int) -> np.ndarray:
    """The mask of ``keep`` entries per row on average, one in each row, that leaves the least sum over rows of (what is missed)^2.

    A row is best served by its largest entries, and each further one gains less than that before: (missed before)^2 - (missed after)^2
    = m (2 missed before - m) falls with m and with what is missed. So taking the largest gain of all rows each time is optimal.

    Examples
    --------
    >>> leanest(np.array([[0.6, 0.4, 0.0], [0.5, 0.3, 0.2]]), 2).sum(axis=1).tolist()
    [2, 2]
    """
    missed = mass.sum(axis=1, keepdims=True) - ahead(mass)
    gain = mass * (2 * missed - mass)
    np.put_along_axis(gain, mass.argmax(axis=1)[:, None], np.inf, axis=1)
    mask = np.zeros(mass.shape, bool)
    mask.ravel()[np.argsort(-gain, axis=None, kind="stable")[: keep * len(mass)]] = True
    return mask
