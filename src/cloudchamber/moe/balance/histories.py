"""Load histories: tokens per window, layer and expert. Generators, the benchmark's JSON, and what to calibrate a twin by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from cloudchamber.core.errors import InputError

Scenario = Literal["drift", "regime", "daynight", "onehot", "sparse"]
SCENARIOS: tuple[Scenario, ...] = ("drift", "regime", "daynight", "onehot", "sparse")


@dataclass(frozen=True, kw_only=True)
class Popularity:
    """How popular experts are, and how that changes.

    Parameters
    ----------
    scenario : {"drift", "regime", "daynight", "onehot", "sparse"}
        ``regime``: every ``period`` windows a fifth of the experts is drawn anew (a change of topic). ``daynight``: a mix of two
        popularities that turns over in ``period`` windows. ``onehot``: an adversary sends nine tenths of a layer's tokens to one
        expert, another one every ``period`` windows. ``sparse``: three in ten experts never get a token. All drift as well.
    alpha : float
        Standard deviation of an expert's log popularity: 0.5 is mild skew, 1.5 is hard.
    group_effect : float
        Standard deviation of what the experts of a group have in common.
    rho, drift : float
        Log popularity wanders as an AR(1) process with coefficient ``rho`` and stationary standard deviation ``drift``.
    tokens : float
        Mean tokens (times experts per token) of a layer and window; counts are Poisson.
    period : int
        Windows between changes.
    """

    scenario: Scenario = "drift"
    alpha: float = 1.0
    group_effect: float = 0.3
    rho: float = 0.9
    drift: float = 0.3
    tokens: float = 3_276_800.0
    period: int = 4

    def history(self, rng: np.random.Generator, *, windows: int, layers: int, experts: int, groups: int) -> np.ndarray:
        """Draw a history, int64 of shape (windows, layers, experts)."""
        shape = (layers, experts)
        group = np.repeat(rng.normal(0, self.group_effect, (layers, groups)), experts // groups, axis=1)
        base, other = (rng.normal(0, self.alpha, shape) + group for _ in range(2))
        wander = rng.normal(0, self.drift, shape)
        silent = rng.random(shape) < (0.3 if self.scenario == "sparse" else 0.0)
        silent[:, 0] = False
        hot = rng.integers(experts, size=layers)
        made = np.empty((windows, *shape), dtype=np.int64)
        for t in range(windows):
            if t and t % self.period == 0:
                if self.scenario == "regime":
                    anew = rng.random(shape) < 0.2
                    base = np.where(anew, rng.normal(0, self.alpha, shape) + group, base)
                hot = rng.integers(experts, size=layers)
            if t:
                wander = self.rho * wander + np.sqrt(1 - self.rho**2) * rng.normal(0, self.drift, shape)
            share = _normalised(np.where(silent, 0.0, np.exp(base + wander)))
            if self.scenario == "daynight":
                day = (1 + np.cos(2 * np.pi * t / self.period)) / 2
                share = day * share + (1 - day) * _normalised(np.exp(other + wander))
            if self.scenario == "onehot":
                share = 0.1 * share + 0.9 * (np.arange(experts) == hot[:, None])
            made[t] = rng.poisson(self.tokens * share)
        return made


def _normalised(weight: np.ndarray) -> np.ndarray:
    return weight / weight.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


class _Step(msgspec.Struct):
    logical_expert_load: list[list[int | float]]


class _File(msgspec.Struct):
    load_history: list[_Step]


def read_history(path: Path) -> np.ndarray:
    """Read a load history as vLLM records it and the ADRS benchmark uses it; return it, int64 of shape (steps, layers, experts).

    One JSON object: ``load_history[t].logical_expert_load[layer][expert]`` is the number of tokens in step (or window) t.

    Raises
    ------
    InputError
        Saying what is wrong with the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the load history {str(path)!r}: {error.strerror}; give a JSON file.") from None
    try:
        steps = msgspec.json.decode(content, type=_File).load_history
        made = np.array([each.logical_expert_load for each in steps], dtype=np.float64)
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is not a load history ({error}); expected "
            '{"load_history": [{"logical_expert_load": [[tokens of expert 0, 1, ...], next layer, ...]}, next step, ...]}.'
        ) from None
    if made.ndim != 3 or not made.size:
        raise InputError(f"{path} holds no loads: every step needs the same layers, and every layer the same experts, at least one.")
    if not np.isfinite(made).all() or (made < 0).any() or (made > 2**53).any():
        raise InputError(f"{path}: tokens must be finite and at least 0.")
    return np.round(made).astype(np.int64)


def windows_of(steps: np.ndarray, length: int) -> np.ndarray:
    """Sum steps into windows; what is left at the end is dropped."""
    count = len(steps) // length
    return steps[: count * length].reshape(count, length, *steps.shape[1:]).sum(axis=1)  # type: ignore[no-any-return]


def calibrated(history: np.ndarray) -> Popularity:
    """Return the drifting popularity with the statistics of a history: skew, drift and its persistence, tokens."""
    seen = history.min(axis=0) > 0  # (layers, experts)
    share = history / np.maximum(history.sum(axis=2, keepdims=True), 1)
    tokens = float(history.sum(axis=2).mean())
    if not seen.any():
        return Popularity(scenario="onehot", tokens=tokens)
    log = np.log(share[:, seen])  # (windows, experts seen)
    middle = log.mean(axis=0)
    away = log - middle
    alpha, drift = float(middle.std()), float(away.std())
    later = float((away[1:] * away[:-1]).sum() / max(float((away[:-1] ** 2).sum()), 1e-12))
    is_sparse = bool((history.sum(axis=0) == 0).mean() > 0.05)
    scenario: Scenario = "sparse" if is_sparse else "drift"
    return Popularity(scenario=scenario, alpha=alpha, group_effect=0.0, rho=min(max(later, 0.0), 0.99), drift=drift, tokens=tokens)
