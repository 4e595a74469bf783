"""TuneLiterals: the numbers of a policy, by CMA-ES."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from .. import code
from ..model import Context, Proposal, Scored

MOST = 40  # numbers of one policy tuned together


class TuneLiterals:
    """Change the numeric literals of a policy together, by CMA-ES over all candidates that differ by numbers only.

    Positive numbers move on a logarithmic scale, others on a linear one; whole numbers stay whole. The state is a fold over the told
    candidates, so that a resumed run goes on as if nothing had happened.

    Reference: Hansen and Ostermeier, Completely Derandomized Self-Adaptation in Evolution Strategies.
    """

    name = "tune"

    def __init__(self, spread: float = 0.3) -> None:
        self._spread = spread
        self._states: dict[str, _Evolution] = {}

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal | None:
        """See :class:`Proposer`."""
        parent = context.parents[0]
        text = code.Text(parent.source)
        nodes = code.literals(text)
        if not 0 < len(nodes) <= MOST:
            return None
        key = code.skeleton(parent.source)
        state = self._states.get(key)
        known = context.history.of_skeleton(key, state.last if state is not None else 0)
        if state is None:
            first = next(iter(known), parent)  # not the parent: a run that is resumed must find the same scale
            state = self._states[key] = _Evolution(_Scale(_values(first.source)), self._spread)
        for told in known:
            state.take_in(told)
        values = state.scale.numbers(state.sample(rng))
        edits = [(text.span(node), _written(value)) for node, value in zip(nodes, values, strict=True) if value != node.value]
        if not edits:
            return None
        changed = [f"{node.value!r}→{_written(value)}" for node, value in zip(nodes, values, strict=True) if value != node.value]
        return Proposal(text.replaced(edits), (parent.number,), f"numbers: {', '.join(changed[:6])}")


class _Scale:
    """Between the numbers of a source and CMA-ES's coordinates, where a step of 1 is a sensible change of each."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        self.is_whole = [isinstance(value, int) for value in values]
        self.is_log = [value > 0 and not (isinstance(value, int) and value < 8) for value in values]

    def point(self, values: list[Any]) -> np.ndarray:
        """Coordinates of numbers."""
        return np.array(
            [
                math.log(max(value, 1e-300)) if is_log else value / (1.0 if is_whole else max(1.0, abs(first)))
                for value, first, is_log, is_whole in zip(values, self.values, self.is_log, self.is_whole, strict=True)
            ]
        )

    def numbers(self, point: np.ndarray) -> list[Any]:
        """Numbers of coordinates."""
        found: list[Any] = []
        for x, first, is_log, is_whole in zip(point, self.values, self.is_log, self.is_whole, strict=True):
            value = math.exp(min(x, 40.0)) if is_log else x * (1.0 if is_whole else max(1.0, abs(first)))
            found.append(round(value) if is_whole else float(f"{value:.6g}"))
        return found


class _Evolution:
    """CMA-ES over the told candidates of one skeleton, a generation at a time."""

    def __init__(self, scale: _Scale, spread: float) -> None:
        self.scale, self._spread = scale, spread
        self.last, self._waiting = 0, list[tuple[np.ndarray, float]]()
        self._best: tuple[float, np.ndarray] | None = None
        self._es: Any = None
        self._worst = 0.0

    def take_in(self, candidate: Scored) -> None:
        """Learn from a candidate told since the last time; void ones count as worse than all."""
        if candidate.number <= self.last or candidate.status in ("told", "rejected"):
            return
        self.last = candidate.number
        if candidate.score is not None and candidate.reason:
            return  # stopped early: its score is of some trials only
        values = _values(candidate.source)
        if len(values) != len(self.scale.values):
            return
        point = self.scale.point(values)
        cost = -candidate.score if candidate.score is not None else self._worst + 1.0
        self._worst = max(self._worst, cost) if candidate.score is not None else self._worst
        if self._best is None or cost < self._best[0]:
            self._best = (cost, point)
        if self._es is None:
            self._start(point)
        else:
            self._waiting.append((point, cost))
            if len(self._waiting) >= self._es.popsize:
                self._turn()

    def _start(self, point: np.ndarray) -> None:
        import cma

        mean = point if len(point) > 1 else np.append(point, 0.0)  # CMA-ES needs two dimensions; the second is not used
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._es = cma.CMAEvolutionStrategy(mean, self._spread, {"seed": 1, "verbose": -9, "CMA_elitist": False})

    def _turn(self) -> None:
        padded = [np.append(point, 0.0) if len(point) == 1 else point for point, _ in self._waiting]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._es.ask()  # CMA-ES wants to be asked before it is told; what it would have drawn is not used
            self._es.tell(padded, [cost for _, cost in self._waiting], check_points=False)
        self._waiting = []

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draw from the present distribution.

        Half of the time only a few coordinates move, which suits programs with numbers that do not matter.
        """
        size = len(self.scale.values)
        spread = (
            np.asarray(self._es.sigma * np.sqrt(np.diag(self._es.C)) * self._es.sigma_vec.scaling)[:size]
            if self._es
            else np.full(size, self._spread)
        )
        mean = np.asarray(self._es.mean)[:size] if self._es else self.scale.point(self.scale.values)
        centre = self._best[1] if self._best is not None and rng.random() < 0.5 else mean
        if self._es is not None and rng.random() < 0.5:
            full = np.asarray(self._es.C)[:size, :size] * self._es.sigma**2
            return np.asarray(rng.multivariate_normal(mean, full, method="eigh", check_valid="ignore"))
        moves = rng.random(size) < max(0.3, 1.5 / size)
        moves[rng.integers(size)] = True
        return np.asarray(centre + moves * rng.standard_normal(size) * np.maximum(spread, 0.05) * rng.choice([1.0, 3.0], p=[0.8, 0.2]))


def _values(source: str) -> list[Any]:
    return [node.value for node in code.literals(code.Text(source))]


def _written(value: Any) -> str:
    text = repr(value)
    return f"({text})" if text.startswith("-") else text
