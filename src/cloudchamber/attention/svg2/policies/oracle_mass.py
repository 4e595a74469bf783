"""The true attention between clusters."""

from __future__ import annotations

from typing import Any

from cloudchamber.attention.svg2.model import ClusterView, Kept, top_p
from cloudchamber.core.policy import Policy


class OracleMass(Policy):
    """Top-p on attention computed in full: what the estimate costs, and how far it could go on these clusters."""

    clairvoyant = True

    def reset(self, spec: Any, rng: Any) -> None:
        """Begin with the first head."""
        super().reset(spec, rng)
        self.head_ = 0

    def keep(self, view: ClusterView) -> Kept:
        """By the truth."""
        mass = self.spec_.future[self.head_]
        self.head_ += 1
        return Kept(top_p(mass, view.p) & (view.sizes_k > 0))
