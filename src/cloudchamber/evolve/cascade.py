"""From a told source to a score: smoke twice, invariants, training trials with racing, hidden trials for those that could win.

Runs wherever the candidate's trials run, also on a worker; it knows no store and no archive, only what :class:`Hints` tells.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .model import Scored
from .splits import Point, Splits
from .trials import Opener, Trial, behaviour, quality

SMOKE, TRAINING, VALIDATION = 1, 2, 3


@dataclass(frozen=True)
class Hints:
    """What the search knows when a candidate is evaluated.

    Parameters
    ----------
    threshold : float
        Score that enters the best of the archive; below it a candidate may be stopped early.
    winners : mapping of str to float
        Best score so far on each training workload.
    validate_from : float
        Score from which a candidate is tried on the hidden workloads.
    seen : mapping of (str, int) to float
        Best quality any candidate reached in each training trial.
    reference : mapping of (str, str, int) to float
        Objective of the starting policy in each trial: by split, workload and seed.
    """

    threshold: float = -math.inf
    winners: Mapping[str, float] = field(default_factory=dict)
    validate_from: float = -math.inf
    seen: Mapping[tuple[str, int], float] = field(default_factory=dict)
    reference: Mapping[tuple[str, str, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluator:
    """The cascade of one run.

    Parameters
    ----------
    opener : Opener
    splits : Splits
    """

    opener: Opener
    splits: Splits

    def evaluate(self, candidate: Scored, hints: Hints, *, is_start: bool = False) -> tuple[Scored, list[Trial]]:
        """Return the candidate with what became of it, and every trial it was given.

        A starting policy is neither raced nor spared the hidden trials.
        """
        trials: list[Trial] = []
        if not is_start:
            first = self._run(candidate, self.splits.smoke, trials)
            again = self.opener.run(candidate.source, self.splits.smoke)
            problem = first.reason or again.reason
            if not problem and first.actions != again.actions:
                problem = "not deterministic: two trials with the same seed gave different actions"
            if problem:
                return self._void(candidate, SMOKE, trials, f"smoke: {problem}", first.feedback), trials
        done: list[Trial] = []
        for point in self.splits.training:
            trial = self._run(candidate, point, trials)
            done.append(trial)
            if trial.reason:
                return self._void(candidate, TRAINING, trials, f"{trial.workload}: {trial.reason}", trial.feedback), trials
            if not is_start and len(done) < len(self.splits.training) and not self._may_enter(done, hints):
                scored = self._scored(candidate, done, hints)
                reason = f"stopped after {len(done)} of {len(self.splits.training)} training trials: it could not enter the archive"
                return replace(scored, reason=reason, stage=TRAINING), trials
        scored = self._scored(candidate, done, hints)
        if is_start or (scored.score or 0.0) >= hints.validate_from:
            scored = self.validate(scored, hints, trials)
        return scored, trials

    def validate(self, candidate: Scored, hints: Hints, trials: list[Trial]) -> Scored:
        """Run the hidden trials; nothing of what they say is fed back."""
        hidden = [self._run(candidate, point, trials) for point in self.splits.validation]
        wrong = [trial for trial in hidden if trial.reason]
        if wrong:
            return self._void(candidate, VALIDATION, trials, "void on a hidden trial", "")
        return replace(candidate, validation=self.mean_quality(hidden, hints), stage=VALIDATION)

    def _run(self, candidate: Scored, point: Point, trials: list[Trial]) -> Trial:
        trial = self.opener.run(candidate.source, point)
        trials.append(trial)
        return trial

    def _void(self, candidate: Scored, stage: int, trials: list[Trial], reason: str, feedback: str) -> Scored:
        return replace(candidate, status="void", stage=stage, reason=reason[:600], feedback=feedback, score=None, trace=_trace(trials))

    def qualities(self, trials: list[Trial], hints: Hints) -> dict[str, list[float]]:
        """Quality of each trial, by workload."""
        metric = self.opener.study.objective
        found: dict[str, list[float]] = {}
        for trial in trials:
            objective = trial.metrics[metric.name]
            reference = hints.reference.get((trial.split, trial.workload, trial.seed), objective)
            found.setdefault(trial.workload, []).append(quality(objective, trial.bound, metric, reference))
        return found

    def mean_quality(self, trials: list[Trial], hints: Hints) -> float:
        """Mean over workloads of the mean over their trials; workloads count the same whatever their order."""
        means = [math.fsum(each) / len(each) for each in self.qualities(trials, hints).values()]
        return math.fsum(means) / len(means)

    def _scored(self, candidate: Scored, done: list[Trial], hints: Hints) -> Scored:
        metric = self.opener.study.objective
        scores = {name: math.fsum(each) / len(each) for name, each in self.qualities(done, hints).items()}
        return replace(
            candidate,
            status="scored",
            stage=TRAINING,
            score=math.fsum(scores.values()) / len(scores),
            scores=scores,
            behaviour=behaviour(done, self.opener.study.metrics),
            objective=math.fsum(trial.metrics[metric.name] for trial in done) / len(done),
            trace=_trace(done),
            feedback=self._feedback(done, hints),
        )

    def _may_enter(self, done: list[Trial], hints: Hints) -> bool:
        """Whether it could still enter if it came, in each trial left, half as near to the bound as the best ever seen there."""
        qualities = self.qualities(done, hints)
        for point in self.splits.training[len(done) :]:
            seen = hints.seen.get((point.name, point.seed))
            if seen is None:
                return True
            qualities.setdefault(point.name, []).append(max(seen, (seen + 1.0) / 2) if seen <= 1.0 else seen * 1.25)
        means = {name: math.fsum(each) / len(each) for name, each in qualities.items()}
        if math.fsum(means.values()) / len(means) > hints.threshold:
            return True
        return any(mean > hints.winners.get(name, -math.inf) for name, mean in means.items())

    def _feedback(self, done: list[Trial], hints: Hints) -> str:
        """The worst training trials in words."""
        metric = self.opener.study.objective
        ranked = sorted(done, key=lambda trial: self.qualities([trial], hints)[trial.workload][0])
        lines = []
        for trial in ranked[:3]:
            best = f", the bound is {trial.bound:.6g}" if trial.bound is not None else ""
            lines.append(f"{trial.workload}: {metric.name} {trial.metrics[metric.name]:.6g} {metric.unit}{best}. {trial.feedback}")
        return "\n".join(lines)


def _trace(trials: list[Trial]) -> str:
    text = "".join(f"{trial.workload}/{trial.seed}/{trial.actions};" for trial in trials)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
