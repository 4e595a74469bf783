"""Moving shapes: videos without end whose objects must be followed through space and time to be drawn right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cloudchamber.attention.model import Grid
from cloudchamber.core.errors import InputError

MEAN, SCALE = 0.12, 0.27  # of the pixels of "moving" clips
SHAPES = 2


@dataclass(frozen=True)
class MovingShapes:
    """Two discs or squares that bounce off the walls of a dark frame.

    Parameters
    ----------
    frames, size : int
        Frames of ``size`` x ``size`` pixels.
    scene : {"moving", "cross"}
        "cross" hides the shapes in the middle half of the clip, while two others are seen: what tells where they come back lies far away.
    radius : tuple of float, default (3, 7)
        Pixels; half the side of a square.
    speed : float, default 3
        Largest of each component of the velocity, in pixels a frame.

    Raises
    ------
    InputError
        If a clip has no frame, or a shape does not fit into it.
    """

    frames: int = 8
    size: int = 32
    scene: Literal["moving", "cross"] = "moving"
    radius: tuple[float, float] = (3.0, 7.0)
    speed: float = 3.0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.size <= 2 * self.radius[1] or not 0 < self.radius[0] <= self.radius[1]:
            raise InputError(f"a clip needs frames, and a size above twice the radius, got {self}.")

    def pixels(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Brightness in [0, 1], float32 of shape (count, frames, size, size).

        Examples
        --------
        >>> MovingShapes(4, 16).pixels(2, np.random.default_rng(0)).shape
        (2, 4, 16, 16)
        """
        shown = self._drawn(count, rng)
        if self.scene == "cross":
            time = np.arange(self.frames)
            hidden = (time >= self.frames // 4) & (time < self.frames - self.frames // 4)
            shown[:, hidden] = self._drawn(count, rng)[:, hidden]
        return shown

    def clips(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Pixels with mean 0 and spread 1, about: what a model is trained on."""
        return (self.pixels(count, rng) - np.float32(MEAN)) / np.float32(SCALE)

    def _drawn(self, count: int, rng: np.random.Generator) -> np.ndarray:
        many = (count, SHAPES)
        radius = rng.uniform(*self.radius, many)
        low, room = radius, self.size - 2 * radius
        start, velocity = rng.random((*many, 2)) * room[..., None], rng.uniform(-self.speed, self.speed, (*many, 2))
        square, light = rng.random(many) < 0.5, rng.uniform(0.4, 1.0, many)
        path = start[..., None, :] + velocity[..., None, :] * np.arange(self.frames)[:, None]
        folded = np.abs((path + room[..., None, None]) % (2 * room[..., None, None]) - room[..., None, None])
        at = low[..., None, None] + room[..., None, None] - folded  # a wall reflects: the path is folded back into the room
        centre = np.arange(self.size) + 0.5
        away = np.abs(centre - at[..., None])  # (count, shapes, frames, 2, size)
        dy, dx = away[..., 0, :, None], away[..., 1, None, :]
        distance = np.where(square[..., None, None, None], np.maximum(dy, dx), np.hypot(dy, dx))
        inside = np.clip(radius[..., None, None, None] - distance + 0.5, 0.0, 1.0)  # soft edges of a pixel
        return np.asarray((inside * light[..., None, None, None]).max(axis=1), np.float32)


def unscaled(clips: np.ndarray) -> np.ndarray:
    """Brightness in [0, 1] of what a model gives."""
    return np.clip(clips * SCALE + MEAN, 0.0, 1.0)


def grid_of(frames: int, size: int, patch: tuple[int, int, int]) -> Grid:
    """Where the tokens of a clip lie, when a token is a patch of so many frames, rows and columns.

    Raises
    ------
    InputError
        If patches do not fill the clip.
    """
    if frames % patch[0] or size % patch[1] or size % patch[2]:
        raise InputError(f"patches of {patch} do not fill {frames} frames of {size} x {size}.")
    return Grid(frames // patch[0], size // patch[1], size // patch[2])
