"""Estimates of how long a prefill takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Instance, Parameters

Profile = tuple[tuple[int, int, float], ...]
PROFILE: Profile = tuple(  # 1,000-token steps; the cost of 32B parameters on one A100, as presets/qwen32b-a100.json has it
    (n, cached, 3.7e-4 * (n - cached) + 1.05e-8 * (n - cached) * (n + cached) / 2)
    for n in range(1000, 20_001, 1000)
    for cached in range(0, n, 4000)
)


class MissTokens(Parameters):
    """Prompt tokens that are not cached: the paper's default, its correlation with measured times is 0.987."""

    def __call__(self, n_input: Any, n_cached: Any) -> Any:
        """Return tokens."""
        return n_input - n_cached


class LinearJCT(Parameters):
    """Seconds by least squares on a profile: a constant, the missing tokens, and missing tokens times prompt tokens.

    The last one makes attention count, which missing tokens alone do not: a long prompt with a long cached prefix costs more than a
    short prompt with as many tokens to compute.

    Parameters
    ----------
    profile : tuple of (int, int, float)
        Prompt tokens, cached tokens and seconds of at least 3 runs; the default is an approximate grid of an A100.
    """

    _constraints = {"profile": Instance(tuple)}

    def __init__(self, profile: Profile = PROFILE) -> None:
        self.profile = profile

    def __call__(self, n_input: Any, n_cached: Any) -> Any:
        """Return seconds."""
        if self.__dict__.get("fitted_") is not self.profile:
            self.weights_, self.fitted_ = self._fit(), self.profile
        base, per_token, per_pair = self.weights_
        miss = n_input - n_cached
        return base + per_token * miss + per_pair * miss * n_input

    def _fit(self) -> np.ndarray:
        try:
            n, cached, took = (np.array(column, dtype=float) for column in zip(*self.profile, strict=True))
        except (TypeError, ValueError):
            n = cached = took = np.zeros(0)
        if len(n) < 3:
            raise InputError(f"LinearJCT: profile needs at least 3 rows (prompt tokens, cached tokens, seconds), got {self.profile!r}.")
        miss = n - cached
        found: np.ndarray = np.linalg.lstsq(np.stack([np.ones_like(n), miss, miss * n], axis=1), took, rcond=None)[0]
        return found
