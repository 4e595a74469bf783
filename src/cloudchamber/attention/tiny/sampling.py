"""Draw clips from a video model, and say how close two clips are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.converting import Converted

from .dit import TinyVideoDiT


@torch.no_grad()
def sample(model: TinyVideoDiT, noise: Tensor, steps: int = 30, converted: Sequence[Converted] = ()) -> Tensor:
    """Follow the velocity from noise to clips, in equal steps.

    Parameters
    ----------
    model : TinyVideoDiT
    noise : Tensor, shape (batch, frames, size, size)
    steps : int
    converted : sequence of Converted
        Replaced attention modules: they forget what they carry, and are told the share of steps that are done, for their schedules.
    """
    clips = noise
    for each in converted:
        each.forget()
    for step in range(steps):
        for each in converted:
            each.attention.at(step=step / steps)
        t = torch.full((len(noise),), 1 - step / steps)
        clips = clips - model(clips, t) / steps
    return clips


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of brightness in [0, 1]; infinite for equal clips.

    Examples
    --------
    >>> round(psnr(np.zeros(4), np.full(4, 0.1)), 6)
    20.0
    """
    error = float(np.square(np.asarray(a, np.float64) - b).mean())
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))


def ssim(a: np.ndarray, b: np.ndarray, window: int = 7) -> float:
    """Structural similarity of the last two axes, in uniform windows, averaged over all: 1 for equal frames."""
    from scipy.ndimage import uniform_filter

    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    size = (1,) * (a.ndim - 2) + (window, window)

    def local(x: np.ndarray) -> np.ndarray:
        return np.asarray(uniform_filter(x, size, mode="reflect"))

    mean_a, mean_b = local(a), local(b)
    var_a, var_b, both = local(a * a) - mean_a**2, local(b * b) - mean_b**2, local(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(found.mean())


def gradient_error(a: np.ndarray, b: np.ndarray, scales: int = 3) -> float:
    """Mean absolute difference of the differences between neighbouring pixels, over frames shrunk by 1, 2, 4, ...: edges that moved."""
    found = []
    for scale in range(scales):
        if scale:
            a, b = _halved(a), _halved(b)
        found += [float(np.abs(np.diff(a, axis=axis) - np.diff(b, axis=axis)).mean()) for axis in (-2, -1)]
    return float(np.mean(found))


def _halved(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
    even = x[..., : 2 * rows, : 2 * columns]
    return np.asarray(even.reshape(*x.shape[:-2], rows, 2, columns, 2).mean(axis=(-3, -1)))
