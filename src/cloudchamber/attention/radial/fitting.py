"""The decay of measured attention, and the width that suits it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudchamber.core.errors import InputError

from .fields import Field, decay_field
from .model import RadialSpec, bands
from .policies.paper import RadialBlock


@dataclass(frozen=True)
class Decay:
    """Weight about ``c · exp(-alpha · frames apart - beta · tokens apart)``; ``r2`` of the regression of its logarithm."""

    alpha: float
    beta: float
    c: float
    r2: float


def fit_decay(attention: np.ndarray, frames: int) -> Decay:
    """Fit the decay of one head's attention map.

    Parameters
    ----------
    attention : ndarray, shape (frames · tokens, frames · tokens)
        Weights after the softmax.
    frames : int

    Raises
    ------
    InputError
        If the map is not square, or not of so many frames.

    Examples
    --------
    >>> place = np.arange(12)
    >>> frame, space = (np.abs(np.subtract.outer(each, each)) for each in (place // 4, place % 4))
    >>> found = fit_decay(0.1 * np.exp(-0.5 * frame - 0.2 * space), 3)
    >>> round(found.alpha, 6), round(found.beta, 6), round(found.r2, 6)
    (0.5, 0.2, 1.0)
    """
    n = len(attention)
    if attention.shape != (n, n) or n % frames:
        raise InputError(f"attention must be a square map of {frames} frames, got {attention.shape}.")
    s = n // frames
    maps = attention.reshape(frames, s, frames, s)
    rows, logs = [], []
    for d in range(frames):
        pairs = [(i, i + d) for i in range(frames - d)] + ([(i + d, i) for i in range(frames - d)] if d else [])
        mean = np.mean([maps[i, :, j, :] for i, j in pairs], axis=0)
        for m in range(s):
            values = np.concatenate([np.diagonal(mean, m), np.diagonal(mean, -m)])
            if values.mean() > 0:
                rows.append((1.0, -d, -m))
                logs.append(np.log(values.mean()))
    x, y = np.array(rows), np.array(logs)
    found, *_ = np.linalg.lstsq(x, y, rcond=None)
    left = ((y - x @ found) ** 2).sum()
    spread = ((y - y.mean()) ** 2).sum()
    return Decay(float(found[1]), float(found[2]), float(np.exp(found[0])), float(1 - left / spread) if spread > 0 else 1.0)


def suggest(alpha: float, beta: float, frames: int, tokens: int, error: float) -> RadialBlock:
    """The narrowest block rule whose attention is off by at most ``error`` (L1) under a decay.

    Raises
    ------
    InputError
        If the error is not in (0, 2].
    """
    if not 0 < error <= 2:
        raise InputError(f"error must be above 0 and at most 2, got {error!r}.")
    field = decay_field(frames, tokens, np.array([alpha]), np.array([beta]), np.zeros(1))
    low, high = 1e-6, 4.0 * frames
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        if _error(middle, field, frames, tokens) <= error:
            high = middle
        else:
            low = middle
    return RadialBlock(gamma=high)


def _error(gamma: float, field: Field, f: int, s: int) -> float:
    policy = RadialBlock(gamma=gamma)
    policy.reset(RadialSpec(f, s), np.random.default_rng(0))
    return float(2 * (1 - field.recall(bands(policy, f, s))).mean())
