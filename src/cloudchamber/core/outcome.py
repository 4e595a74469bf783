"""What one trial yields, what bounds it, and what it is measured in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import InputError

Direction = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """A quantity a trial is judged by.

    Parameters
    ----------
    name : str
        Key in ``Outcome.metrics`` and in the rows of ``--json``; carries its unit (``cost_usd``).
    unit : str
    direction : {"min", "max"}
        Which way is better.
    low, high : float
        Values outside make a trial void.
    is_timed : bool
        Whether it is measured on a clock, and so may differ between two runs with the same seed.
    """

    name: str
    unit: str
    direction: Direction = "min"
    low: float = 0.0
    high: float = math.inf
    is_timed: bool = False

    def __post_init__(self) -> None:
        if not self.unit:
            raise InputError(f"metric {self.name!r} needs a unit; use '1' for a plain number.")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One trial: metrics, violations (any makes it void), time series for the report, and feedback in words.

    Parameters
    ----------
    metrics : mapping of str to float
        Every metric of the study; empty when the trial is void before it could be measured.
    violations : tuple of str
        Invariants that did not hold, in words.
    series : mapping of str to array
        The trial over time, for figures.
    feedback : str
        What a person (or a model) could act on.
    """

    metrics: Mapping[str, float]
    violations: tuple[str, ...] = ()
    series: Mapping[str, Any] = field(default_factory=dict)
    feedback: str = ""

    @property
    def is_void(self) -> bool:
        """Whether the trial has no score."""
        return bool(self.violations)

    @classmethod
    def void(cls, reason: str, feedback: str = "") -> Outcome:
        """An outcome without any metric."""
        return cls({}, (reason,), feedback=feedback or reason)


@dataclass(frozen=True, eq=False)
class Bound:
    """The best any policy could have done in one trial.

    Parameters
    ----------
    value : float
        In the unit of the objective.
    is_exact : bool
        True if it is attained, False if it is only a bound.
    outcome : Outcome or None
        The outcome that attains it.
    """

    value: float
    is_exact: bool
    outcome: Outcome | None = None


def ratio(objective: float | None, bound: float | None, direction: Direction) -> float | None:
    """Objective / bound if minimised, bound / objective if maximised: 1 is optimal. None without a positive bound."""
    if objective is None or bound is None or not bound > 0:
        return None
    return objective / bound if direction == "min" else (bound / objective if objective else math.inf)


def judged(outcome: Outcome, metrics: tuple[Metric, ...], bound: Bound | None) -> Outcome:
    """Return the outcome, void if a metric is missing, out of range, or the objective better than the bound."""
    problems = list(outcome.violations)
    if not problems:
        for metric in metrics:
            value = outcome.metrics.get(metric.name)
            if value is None or not metric.low <= value <= metric.high:
                problems.append(f"{metric.name} is {value}, outside [{metric.low:g}, {metric.high:g}] {metric.unit}")
        if not problems and bound is not None and _beats(outcome.metrics[metrics[0].name], bound.value, metrics[0].direction):
            problems.append(f"{metrics[0].name} {outcome.metrics[metrics[0].name]:.9g} is better than the bound {bound.value:.9g}")
    if len(problems) == len(outcome.violations):
        return outcome
    return Outcome(outcome.metrics, tuple(problems), outcome.series, outcome.feedback or "; ".join(problems))


def _beats(value: float, bound: float, direction: Direction) -> bool:
    slack = 1e-6 * max(1.0, abs(bound))
    return value < bound - slack if direction == "min" else value > bound + slack
