"""The floor: blocks by lot."""

from __future__ import annotations

from cloudchamber.attention.model import kept
from cloudchamber.attention.sla.model import Routes, RouteView, labelled
from cloudchamber.core.policy import Policy


class RandomRoute(Policy):
    """As many critical and negligible blocks as the paper's rule, drawn without replacement."""

    def route(self, view: RouteView) -> Routes:
        """Draw."""
        drawn = self.rng_.random(view.scores.shape)
        return Routes(labelled(kept(drawn, self.spec_.critical), drawn, self.spec_.negligible))
