"""What load a policy is shown: a guess at the next window from those that are over. Part of the workload, not of the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Predictor(Protocol):
    """Guesses the load of the next window."""

    def predict(self, history: np.ndarray) -> np.ndarray:
        """Return the load (layers, experts) expected after a history of shape (windows, layers, experts), oldest first."""


@dataclass(frozen=True)
class Last:
    """The window that has just ended."""

    def predict(self, history: np.ndarray) -> np.ndarray:
        """Return the last window."""
        return np.array(history[-1], dtype=np.float64)


@dataclass(frozen=True)
class EWMA:
    """An exponentially weighted mean; ``weight`` is that of the newest window."""

    weight: float = 0.5

    def predict(self, history: np.ndarray) -> np.ndarray:
        """Return the weighted mean."""
        age = np.arange(len(history))[::-1]
        weights = self.weight * (1 - self.weight) ** age
        weights[0] = (1 - self.weight) ** age[0]
        return np.tensordot(weights, history, axes=1)


@dataclass(frozen=True)
class WindowMean:
    """The mean of the last windows."""

    windows: float = 4

    def predict(self, history: np.ndarray) -> np.ndarray:
        """Return the mean."""
        return np.asarray(history[-round(self.windows) :].mean(axis=0))


@dataclass(frozen=True)
class Quantile:
    """A quantile of the last eight windows, for experts whose load comes in bursts."""

    q: float = 0.8

    def predict(self, history: np.ndarray) -> np.ndarray:
        """Return each expert's quantile."""
        return np.asarray(np.quantile(history[-8:], self.q, axis=0))


PREDICTORS = {"last": Last, "ewma": EWMA, "mean": WindowMean, "quantile": Quantile}
