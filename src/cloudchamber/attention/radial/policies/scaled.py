"""Rules with one factor on the width, found so that the budget is just met."""

from __future__ import annotations

from typing import Any

from cloudchamber.attention.radial.model import BandWidth, bands, count
from cloudchamber.core.policy import Policy

ROUNDS = 40  # halvings of the interval of factors


class _Scaled(Policy, BandWidth):
    """A rule ``shape(d, f, s, scale)`` whose scale is ``gamma``, or the largest that meets the budget where ``gamma`` is 0.

    A rule that exceeds the budget at any scale is left at its smallest: the world then says by how much.
    """

    gamma: float = 0.0

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """Return the width at a scale."""
        raise NotImplementedError

    def reset(self, spec: Any, rng: Any) -> None:
        """Find the scale."""
        super().reset(spec, rng)
        f, s = spec.frames, spec.tokens
        low, high = 0.0, float(2 * s * max(f, 2))
        self.scale_ = self.gamma
        if not self.gamma:
            for _ in range(ROUNDS):
                self.scale_ = (low + high) / 2
                fits = count(bands(self, f, s), f, s, sink=spec.sink) <= spec.density * (f * s) ** 2
                low, high = (self.scale_, high) if fits else (low, self.scale_)
            self.scale_ = low

    def width(self, d: int, f: int, s: int) -> float:
        """The rule at the scale that was found."""
        return self.shape(d, f, s, self.scale_)

    def keep(self, d: int) -> bool:
        """Every frame with a width."""
        return True
