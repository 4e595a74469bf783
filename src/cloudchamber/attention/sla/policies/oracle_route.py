"""True attention between blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from cloudchamber.attention.sla.model import Routes, RouteView, labelled, leanest
from cloudchamber.core.policy import Policy


class OracleRoute(Policy):
    """Critical are the blocks that leave least of the attention to be missed, computed in full: the optimum at this budget.

    It spends the budget of a head where rows need it, and keeps no row short: what a row misses counts squared.
    """

    clairvoyant = True

    def reset(self, spec: Any, rng: Any) -> None:
        """Begin with the first head."""
        super().reset(spec, rng)
        self.head_ = 0

    def route(self, view: RouteView) -> Routes:
        """By the truth; a row weighs as many queries as it has."""
        mass = self.spec_.future[self.head_]
        self.head_ += 1
        return Routes(labelled(leanest(mass * np.sqrt(view.q_sizes)[:, None], self.spec_.critical), mass, self.spec_.negligible))
