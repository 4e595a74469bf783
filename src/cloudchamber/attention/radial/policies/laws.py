"""Simpler laws of width over distance."""

from __future__ import annotations

import math
from typing import Any

from cloudchamber.attention.radial.policies.scaled import _Scaled
from cloudchamber.core.policy import Integer, Real


class PowerLaw(_Scaled):
    """Width scale · s · max(d, 1)^-power.

    Parameters
    ----------
    power : float, default 1.0
    gamma : float, default 0.0
        Scale; 0: the largest that meets the budget.
    """

    _constraints = {"power": Real(0), "gamma": Real(0)}

    def __init__(self, power: float = 1.0, gamma: float = 0.0) -> None:
        self.power = power
        self.gamma = gamma

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """The law."""
        return scale * s * math.exp(-self.power * math.log(max(d, 1)))


class Linear(_Scaled):
    """Width falls linearly, to nothing at the frame the scale says: scale · (1 - d / (scale · f)) of a frame.

    Parameters
    ----------
    gamma : float, default 0.0
        Scale; 0: the largest that meets the budget.
    """

    _constraints = {"gamma": Real(0)}

    def __init__(self, gamma: float = 0.0) -> None:
        self.gamma = gamma

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """The law."""
        return max(0.0, s * (scale - d / f))


class Harmonic(_Scaled):
    """Width scale · s / (1 + d).

    Parameters
    ----------
    gamma : float, default 0.0
        Scale; 0: the largest that meets the budget.
    """

    _constraints = {"gamma": Real(0)}

    def __init__(self, gamma: float = 0.0) -> None:
        self.gamma = gamma

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """The law."""
        return scale * s / (1.0 + d)


class SlidingTile(_Scaled):
    """A window of the same width in a few frames around, as Sliding Tile Attention has it.

    Parameters
    ----------
    frames : int, default 3
        Frames on each side, at least: more where the budget is not spent on whole frames.
    gamma : float, default 0.0
        Width in tokens; 0: the largest that meets the budget.

    References
    ----------
    Fast Video Generation with Sliding Tile Attention.
    """

    _constraints = {"frames": Integer(0), "gamma": Real(0)}

    def __init__(self, frames: int = 3, gamma: float = 0.0) -> None:
        self.frames = frames
        self.gamma = gamma

    def reset(self, spec: Any, rng: Any) -> None:
        """Find the width, and take more frames in while whole ones leave something over."""
        self.frames_ = self.frames
        super().reset(spec, rng)
        while not self.gamma and self.scale_ >= spec.tokens and self.frames_ < spec.frames - 1:
            self.frames_ += 1
            super().reset(spec, rng)

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """The window."""
        return scale

    def keep(self, d: int) -> bool:
        """Near frames only."""
        return d <= self.frames_


class SpatialOnly(_Scaled):
    """Whole frames around: the spatial half of Sparse VideoGen. The scale is a number of frames, the last one partly.

    Parameters
    ----------
    gamma : float, default 0.0
        Frames; 0: as many as the budget allows.
    """

    _constraints = {"gamma": Real(0)}

    def __init__(self, gamma: float = 0.0) -> None:
        self.gamma = gamma

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """Full up to the scale."""
        return s * min(1.0, max(0.0, scale - d))


class TemporalOnly(_Scaled):
    """The same place in every frame: the temporal half of Sparse VideoGen.

    Parameters
    ----------
    gamma : float, default 0.0
        Tokens on each side; 0: as many as the budget allows.
    """

    _constraints = {"gamma": Real(0)}

    def __init__(self, gamma: float = 0.0) -> None:
        self.gamma = gamma

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """One width for all distances."""
        return scale


class StridedLong(_Scaled):
    """Near frames with a window, and every few frames beyond with the same.

    Parameters
    ----------
    stride : int, default 4
        Of frames beyond the first ``stride``; smaller where the budget is not spent on whole frames.
    gamma : float, default 0.0
        Width in tokens; 0: the largest that meets the budget.
    """

    _constraints = {"stride": Integer(1), "gamma": Real(0)}

    def __init__(self, stride: int = 4, gamma: float = 0.0) -> None:
        self.stride = stride
        self.gamma = gamma

    def reset(self, spec: Any, rng: Any) -> None:
        """Find the width, and a smaller stride while whole frames leave something over."""
        self.stride_ = self.stride
        super().reset(spec, rng)
        while not self.gamma and self.scale_ >= spec.tokens and self.stride_ > 1:
            self.stride_ -= 1
            super().reset(spec, rng)

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """The window."""
        return scale

    def keep(self, d: int) -> bool:
        """All that are near, then every ``stride``-th."""
        return d < self.stride_ or d % self.stride_ == 0


class Exponential(_Scaled):
    """Width scale · s · 2^(-d / half): what the decay model itself would say.

    Parameters
    ----------
    half : float, default 4.0
        Frames after which the width has halved.
    gamma : float, default 0.0
        Scale; 0: the largest that meets the budget.
    """

    _constraints = {"half": Real(0, strict=True), "gamma": Real(0)}

    def __init__(self, half: float = 4.0, gamma: float = 0.0) -> None:
        self.half = half
        self.gamma = gamma

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """The law."""
        return scale * s * math.exp2(-d / self.half)
