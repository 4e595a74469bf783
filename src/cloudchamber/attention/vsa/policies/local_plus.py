"""Neighbours for sure, the rest by score."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import kept
from cloudchamber.attention.vsa.model import Tiles, TileView
from cloudchamber.core.policy import Policy, Real


class LocalPlusTopK(Policy):
    """Spend a share of the K tiles on the nearest, and the rest on the best scores.

    Parameters
    ----------
    local : float, default 0.5
        Share of K that goes to neighbours, the own tile first.
    """

    _constraints = {"local": Real(0, 1)}

    def __init__(self, local: float = 0.5) -> None:
        self.local = local

    def select(self, view: TileView) -> Tiles:
        """Neighbours count as if their score were the best there is."""
        near = kept(-apart(view.places), max(1, int(self.local * self.spec_.keep)))
        return Tiles(kept(np.where(near, np.inf, view.scores), self.spec_.keep))


def apart(places: np.ndarray) -> np.ndarray:
    """Steps between tiles along all axes together."""
    return np.asarray(np.abs(places[:, None] - places[None]).sum(axis=2))
