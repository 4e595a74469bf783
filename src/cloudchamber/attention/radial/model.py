"""The nouns of Radial Attention: how wide a band of each frame a query reads, by the frames between them."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message


class RadialSpec(Message, frozen=True):
    """What a policy knows before it is asked.

    Parameters
    ----------
    frames, tokens : int
        Frames, and tokens of each (f and s).
    density : float
        Share of all pairs that may be computed, the sink's included.
    sink : bool
        Every query reads the whole first frame, whatever the policy says.
    """

    frames: int
    tokens: int
    density: float = 1.0
    sink: bool = True

    def __post_init__(self) -> None:
        for name in ("frames", "tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if not 0 < self.density <= 1:
            raise InputError(f"density must be above 0 and at most 1, got {self.density!r}.")


class BandWidth(Protocol):
    """Decides which band of a frame is read: query k of frame i reads key l of frame j iff ``keep(d)`` and |k - l| + 1 <= ``width(d)``.

    d = |i - j|. The own frame is always read around the own token.
    """

    def reset(self, spec: RadialSpec, rng: np.random.Generator) -> None:
        """Forget everything and learn the shape; called once before each trial."""
        ...

    def width(self, d: int, f: int, s: int) -> float:
        """Return the width in tokens for frames ``d`` apart, of ``f`` frames of ``s`` tokens."""
        ...

    def keep(self, d: int) -> bool:
        """Return whether frames ``d`` apart are read at all."""
        ...


def bands(policy: BandWidth, f: int, s: int) -> np.ndarray:
    """Whole tokens of the band for every distance, 0 where a frame is left out: shape (f,). The own frame keeps its diagonal.

    Raises
    ------
    InputError
        If a width is not finite or below 0.
    """
    found = np.zeros(f, np.int64)
    for d in range(f):
        if policy.keep(d):
            width = float(policy.width(d, f, s))
            if not np.isfinite(width) or width < 0:
                raise InputError(f"width({d}, {f}, {s}) must be a finite number of at least 0, got {width}.")
            found[d] = min(int(width), s)
    found[0] = max(found[0], 1)
    return found


def band_pairs(widths: np.ndarray, s: int) -> np.ndarray:
    """Pairs of tokens of two frames within each band: s for the diagonal, and twice each side's shorter diagonals."""
    w = np.minimum(np.asarray(widths, np.int64), s)
    return np.asarray(np.where(w > 0, s + (w - 1) * (2 * s - w), 0))


def count(widths: np.ndarray, f: int, s: int, *, sink: bool = True) -> int:
    """Pairs that are computed, from the histogram of distances: O(f), no mask is built.

    Examples
    --------
    >>> count(np.array([2, 2, 2]), 3, 2, sink=False)
    36
    """
    pairs = band_pairs(widths, s)
    times = np.where(np.arange(f) == 0, f, 2 * (f - np.arange(f)))
    total = int((pairs * times).sum())
    if sink:  # frame 0 as a key, for each query frame i at distance i
        total += int((s * s - pairs).sum())
    return total
