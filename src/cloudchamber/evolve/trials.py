"""One trial of a candidate, on the trusted side: jailed, recorded, judged, and turned into a quality between 0 and 1."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cloudchamber.core.errors import CandidateError, InputError, JailUnavailable
from cloudchamber.core.messages import encode
from cloudchamber.core.outcome import Bound, Metric, Outcome, judged
from cloudchamber.core.parallel import one_trial
from cloudchamber.core.registry import jailed
from cloudchamber.core.source import verbs_of
from cloudchamber.core.study import Study

from .splits import Point

FEEDBACK = 1200  # characters of one trial


@dataclass(frozen=True)
class Trial:
    """What is kept of a trial.

    Parameters
    ----------
    split, workload : str
    seed : int
    metrics : dict of str to float
        Empty when void.
    bound : float or None
    reason : str
        Why it is void; empty if it is not.
    feedback : str
    actions : str
        Hash of every answer the candidate gave.
    questions : int
        How often it was asked: 0 means its code never ran.
    """

    split: str
    workload: str
    seed: int
    metrics: dict[str, float]
    bound: float | None
    reason: str
    feedback: str
    actions: str
    questions: int


@dataclass(frozen=True)
class Opener:
    """What a worker needs to open a candidate: nothing of it is secret.

    Parameters
    ----------
    study : Study
    level : str
        Of the jail.
    limits : Limits or None
    """

    study: Study
    level: str
    limits: Any = None

    def maker(self, source: str) -> Callable[[], Any]:
        """The constructor that opens a source in the jail; a study whose candidates are no policies wraps them itself."""
        own = getattr(self.study, "open_source", None)
        if own is not None:
            return own(source, self.level)  # type: ignore[no-any-return]
        return jailed(self.study, source, level=self.level, limits=self.limits)

    def run(self, source: str | Callable[[], Any], point: Point) -> Trial:
        """Run a candidate (its source, or a constructor of a built-in policy) in one trial."""
        recorded = _Recording(self.maker(source) if isinstance(source, str) else source, verbs_of(self.study.protocol))
        bound = bound_of(self.study, point.workload, point.seed)
        try:
            outcome = one_trial(self.study, recorded, point.workload, point.seed)
        except JailUnavailable:
            raise
        except Exception as error:  # a world that fails on an answer must not end the run, now and at every resume
            outcome = Outcome.void(f"the world failed on its answers: {type(error).__name__}: {error}")
        outcome = judged(outcome, self.study.metrics, bound)
        if not outcome.violations and recorded.questions == 0:
            outcome = Outcome.void("the policy was never asked, so its code did not run")
        reason = "; ".join(outcome.violations)
        metrics = {} if reason else {metric.name: float(outcome.metrics[metric.name]) for metric in self.study.metrics}
        return Trial(
            point.split, point.name, point.seed, metrics, bound.value if bound else None, reason[:400], outcome.feedback[:FEEDBACK],
            recorded.digest, recorded.questions,
        )  # fmt: skip


@lru_cache(maxsize=4096)
def bound_of(study: Study, workload: Any, seed: int) -> Bound | None:
    """A trial's bound, computed once per process."""
    return study.bound(workload, seed)


class _Recording:
    """Constructor of a policy whose answers are hashed on their way into the world."""

    def __init__(self, make: Callable[[], Any], verbs: tuple[str, ...]) -> None:
        self._make, self._verbs = make, verbs
        self.level = getattr(make, "level", None)
        self.questions, self._hash = 0, hashlib.sha256()

    def __call__(self) -> Any:
        self.questions, self._hash = 0, hashlib.sha256()  # a trial tried again starts again
        policy = self._make()
        recorder = self

        class Recorded:
            clairvoyant = False

            def __enter__(self) -> Any:
                if hasattr(policy, "__enter__"):
                    policy.__enter__()
                return self

            def __exit__(self, *exit_: Any) -> None:
                if hasattr(policy, "__exit__"):
                    policy.__exit__(*exit_)

            def __getattr__(self, name: str) -> Any:
                value = getattr(policy, name)
                return recorder._wrapped(name, value) if callable(value) else value

        return Recorded()

    def _wrapped(self, name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any) -> Any:
            self.questions += name != "reset"  # to be reset is not to be asked
            answer = verb(*args)
            try:
                self._hash.update(encode(answer))
            except (InputError, NotImplementedError, TypeError, OverflowError, ValueError) as error:
                raise CandidateError(f"the answer, a {type(answer).__name__}, is no message: {error}", "type") from None
            return answer

        return asked

    @property
    def digest(self) -> str:
        """Hash of all answers so far."""
        return self._hash.hexdigest()[:32]


def quality(objective: float, bound: float | None, metric: Metric, reference: float) -> float:
    """Return how good an objective is: 1 at a positive bound, otherwise 1 + the gain relative to ``reference``, the starting policy's.

    Examples
    --------
    >>> quality(4.0, 2.0, Metric("cost_usd", "USD"), 8.0)
    0.5
    >>> quality(6.0, None, Metric("cost_usd", "USD"), 8.0)
    1.25
    """
    if bound is not None and bound > 0:
        if metric.direction == "min":
            return bound / objective if objective > 0 else 1.0
        return max(0.0, objective) / bound
    gain = reference - objective if metric.direction == "min" else objective - reference
    return 1.0 + gain / max(abs(reference), 1e-12)


def behaviour(trials: list[Trial], metrics: tuple[Metric, ...]) -> tuple[float, ...]:
    """The next two metrics that no clock measures, scaled to [0, 1] by their declared range (by x / (1 + x) where it is open)."""
    found = []
    for metric in [metric for metric in metrics[1:] if not metric.is_timed][:2]:  # a clock must not steer the search
        mean = math.fsum(trial.metrics[metric.name] for trial in trials) / len(trials)
        if math.isfinite(metric.low) and math.isfinite(metric.high):
            found.append((mean - metric.low) / max(metric.high - metric.low, 1e-12))
        else:
            found.append(abs(mean) / (1 + abs(mean)))
    return tuple(found)
