"""As many critical blocks as a share of the estimated attention asks for."""

from __future__ import annotations

from cloudchamber.attention.sla.model import Routes, RouteView, ahead, estimate, labelled, within
from cloudchamber.core.policy import Policy, Real


class TopP(Policy):
    """Blocks are critical until those of their row hold a share p of the estimated attention: flat rows get more of them than peaked ones.

    Where the budget does not reach, p is what it allows, the same for all rows.

    Parameters
    ----------
    p : float, default 0.95
        Share at which a row has enough.
    """

    _constraints = {"p": Real(0, 1)}

    def __init__(self, p: float = 0.95) -> None:
        self.p = p

    def route(self, view: RouteView) -> Routes:
        """By the mass that better blocks hold."""
        before = ahead(estimate(view))
        critical = within(before, before <= self.p, self.spec_.critical * len(before))
        return Routes(labelled(critical, view.scores, self.spec_.negligible))
