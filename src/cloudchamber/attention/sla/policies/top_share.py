"""The paper's rule."""

from __future__ import annotations

from cloudchamber.attention.model import kept
from cloudchamber.attention.sla.model import Routes, RouteView, labelled
from cloudchamber.core.policy import Policy


class TopShare(Policy):
    """In every row the same number of critical blocks, those of the best scores, and of negligible ones, those of the worst.

    A softmax keeps the order of a row, so the scores themselves decide; ties go to the lower block.

    References
    ----------
    SLA: Beyond Sparsity in Diffusion Transformers via Fine-Tunable Sparse-Linear Attention.
    """

    def route(self, view: RouteView) -> Routes:
        """The top and the bottom of each row."""
        return Routes(labelled(kept(view.scores, self.spec_.critical), view.scores, self.spec_.negligible))
