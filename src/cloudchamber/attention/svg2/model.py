"""The nouns of Sparse VideoGen2: estimated attention between clusters, and which pairs are computed."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cloudchamber.core.messages import Message


class ClusterSpec(Message, frozen=True):
    """What a policy knows before the trial.

    Parameters
    ----------
    p : float
        Share of the attention that is to be caught.
    heads : int
        Heads that will be asked about, one after another.
    future : ndarray of shape (heads, clusters, clusters), or None
        True attention between the clusters of every head, for policies of the package that are marked clairvoyant.
    """

    p: float
    heads: int
    future: np.ndarray | None = None


class ClusterView(Message, frozen=True):
    """One head.

    Parameters
    ----------
    prob : ndarray, shape (query clusters, key clusters)
        Estimated attention: softmax over key clusters of the centroids' scores, weighted by the clusters' sizes. Rows sum to 1.
    spread : ndarray, shape (query clusters, key clusters)
        What scatter within the clusters adds to the logarithm of each estimate, to second order: E exp(q·k) exceeds exp(E q·k).
    sizes_q, sizes_k : ndarray of int
        Tokens of each cluster; 0 for an empty one.
    p : float
        Share of the attention that is to be caught.
    sample_row : ndarray of int, shape (samples,)
        Query clusters of a few queries that were looked at in full.
    sample_mass : ndarray, shape (samples, key clusters)
        Their true attention.
    places_q, places_k : ndarray, shape (clusters, 3)
        Mean frame, row and column of the tokens of each cluster.
    antidiagonal : ndarray, shape (query clusters, key clusters), or None
        Another estimate, by sums along antidiagonals of the scores; a module computes it only for rules with ``reads_antidiagonals``.
    """

    prob: np.ndarray
    spread: np.ndarray
    sizes_q: np.ndarray
    sizes_k: np.ndarray
    p: float
    sample_row: np.ndarray
    sample_mass: np.ndarray
    places_q: np.ndarray
    places_k: np.ndarray
    antidiagonal: np.ndarray | None = None


class Kept(Message, frozen=True):
    """The answer: pairs of clusters that are computed, shape (query clusters, key clusters), bool."""

    mask: np.ndarray


class ClusterKeep(Protocol):
    """Decides which pairs of clusters are computed. See :class:`cloudchamber.core.policy.Policy` for a base class."""

    def reset(self, spec: ClusterSpec, rng: np.random.Generator) -> None:
        """Forget everything; called once before each trial."""
        ...

    def keep(self, view: ClusterView) -> Kept:
        """Return the pairs of one head."""
        ...


def top_p(prob: np.ndarray, p: float, min_ratio: float = 0.0) -> np.ndarray:
    """For each row the largest entries until they sum to more than ``p``, and at least a share ``min_ratio`` of all.

    An entry is kept iff the sum of strictly larger ones before it is at most p: the one that crosses p is kept, the first always; with
    p = 1 all are, whatever the rounding.

    Examples
    --------
    >>> top_p(np.array([[0.5, 0.3, 0.2]]), 0.6)
    array([[ True,  True, False]])
    """
    order = np.argsort(-prob, axis=1, kind="stable")
    ranked = np.take_along_axis(prob, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    kept = (before <= p) | (p >= 1)
    kept[:, : int(min_ratio * prob.shape[1])] = True
    mask = np.zeros(prob.shape, bool)
    np.put_along_axis(mask, order, kept, axis=1)
    return mask
