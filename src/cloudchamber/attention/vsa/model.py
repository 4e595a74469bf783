"""The nouns of VSA: scores between tiles, where tiles lie, and which are read."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cloudchamber.core.messages import Message


class TileSpec(Message, frozen=True):
    """What a policy knows before the trial.

    Parameters
    ----------
    tiles : tuple of (int, int, int)
        Tiles along frames, rows and columns.
    keep : int
        Key tiles that every query tile may read (K).
    heads : int
        Heads that will be asked about, one after another.
    future : ndarray of shape (heads, tiles, tiles), or None
        True attention between the tiles of every head, for policies of the package that are marked clairvoyant.
    """

    tiles: tuple[int, int, int]
    keep: int
    heads: int
    future: np.ndarray | None = None


class TileView(Message, frozen=True):
    """One head.

    Parameters
    ----------
    scores : ndarray, shape (tiles, tiles)
        Scaled products of mean queries and mean keys.
    best : ndarray, shape (tiles, tiles)
        The same with the largest of each key dimension in place of its mean.
    sizes : ndarray of int, shape (tiles,)
        Tokens of each tile; those at an edge are smaller.
    places : ndarray of int, shape (tiles, 3)
        Where each tile lies.
    """

    scores: np.ndarray
    best: np.ndarray
    sizes: np.ndarray
    places: np.ndarray


class Tiles(Message, frozen=True):
    """The answer: key tiles that each query tile reads, shape (tiles, tiles), bool; at most ``keep`` in a row."""

    mask: np.ndarray


class TileSelect(Protocol):
    """Decides which key tiles each query tile reads. See :class:`cloudchamber.core.policy.Policy` for a base class."""

    def reset(self, spec: TileSpec, rng: np.random.Generator) -> None:
        """Forget everything; called once before each trial."""
        ...

    def select(self, view: TileView) -> Tiles:
        """Return the tiles of one head."""
        ...
