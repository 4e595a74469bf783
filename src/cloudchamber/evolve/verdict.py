"""The held-out verdict: the winner against what it started from, once, on trials nobody has seen."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.evidence.intervals import Block, interval
from cloudchamber.core.policy import is_clairvoyant

from .splits import Point
from .trials import Opener, Trial, quality

if TYPE_CHECKING:
    from .search import Search

LEVEL = 0.05


@dataclass(frozen=True)
class HeldOut:
    """Quality of the winner over quality of a baseline, on the held-out trials of both.

    Parameters
    ----------
    candidate : int
        The winner.
    baseline : str
        The starting policy, or the best of the study's own.
    gain, low, high : float
        Relative gain in quality and its 95 % interval (paired: both ran the same trials; bootstrap over seeds).
    objective, baseline_objective, bound : float
        Means, in the study's unit; ``bound`` is NaN where none is known.
    trials : int
    void : str
        Why the winner is worth nothing; empty if it is not void.
    """

    candidate: int
    baseline: str
    gain: float
    low: float
    high: float
    objective: float
    baseline_objective: float
    bound: float
    trials: int
    void: str = ""

    @property
    def is_improvement(self) -> bool:
        """Whether the interval excludes zero."""
        return not self.void and self.low > 0

    def __str__(self) -> str:
        if self.void:
            return f"candidate {self.candidate} is void on the held-out trials: {self.void}"
        limits = f"95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f}, {self.trials} trials"
        if not math.isfinite(self.gain):
            return f"no verdict: fewer than two valid held-out trials of a workload ({self.trials} in all)"
        spread = f"{100 * self.gain:+.1f} % quality against {self.baseline} ({limits})"
        return f"improvement: {spread}" if self.is_improvement else f"no improvement shown: {spread}"


def judge(search: Search, n_jobs: int = 1, backend: str = "local") -> list[HeldOut]:
    """Run the winner and the baselines on the held-out trials and keep the verdict in the store.

    The baselines are the policy the winner descends from, the best starting policy, and the study's own that is best on these very
    trials (which favours it): a search that spliced a sibling in has found nothing until it beats that one. A run that went on after its
    verdict gets a new one if its winner is another; the store counts how often the held-out trials were met.

    Raises
    ------
    InputError
        If nothing was scored yet.
    """
    winner = search.best()
    if winner is None:
        raise InputError("nothing was scored yet, so there is no winner to judge.")
    known = search.store["verdict"] or []
    if known and known[0]["candidate"] == winner.number:
        return [_verdict(each) for each in known]
    opener, points = search.evaluator.opener, search.splits.held_out
    baselines = {each.note: each for each in _baselines(search, winner.number)}
    subjects: dict[str, str] = {"winner": winner.source, **{name: each.source for name, each in baselines.items()}}
    siblings = {name: make for name, make in search.study.policies().items() if not _sees(make) and name not in subjects}
    ran = _run(opener, {**subjects, **siblings}, points, n_jobs, backend)
    metric = search.study.objective
    base = {(t.workload, t.seed): t.metrics.get(metric.name, 1.0) for t in ran[next(iter(baselines))]}
    means = {
        name: math.fsum(quality(t.metrics[metric.name], t.bound, metric, base[t.workload, t.seed]) for t in ran[name])
        for name in siblings
        if not any(t.reason for t in ran[name])
    }
    best = [max(means, key=lambda name: means[name])] if means else []
    verdicts = []
    reference = next(iter(baselines))
    for name in (*baselines, *best):
        verdicts.append(_compare(search, winner.number, ran["winner"], name, ran[name], ran[reference]))
    search.store["verdict"] = [plain(each) for each in verdicts]
    search.store["verdicts"] = int(search.store["verdicts"] or 0) + 1
    search.store.event("verdict", str(verdicts[0]))
    return verdicts


def _sees(make: Callable[[], Any]) -> bool:
    """Whether a built-in policy is shown the future: a yardstick, not a rival."""
    return is_clairvoyant(make())


def _baselines(search: Search, winner: int) -> list[Any]:
    """The ancestor among the starting policies first, then the best of them."""
    starts = {each.number: each for each in search.starts}
    ancestor = search.store.candidate(winner)
    while ancestor is not None and ancestor.number not in starts and ancestor.parents:
        ancestor = search.store.candidate(ancestor.parents[0])
    first = [starts[ancestor.number]] if ancestor is not None and ancestor.number in starts else []
    return list(dict.fromkeys([*first, max(search.starts, key=lambda each: (each.score or 0.0, -each.number))]))


def _run(
    opener: Opener, subjects: Mapping[str, str | Callable[[], Any]], points: tuple[Point, ...], n_jobs: int, backend: str
) -> dict[str, list[Trial]]:
    tasks = [(name, source, point) for point in points for name, source in subjects.items()]
    if n_jobs == 1:
        done = [opener.run(source, point) for _, source, point in tasks]
    else:
        import joblib

        from cloudchamber.core.parallel import workers

        with workers(backend):
            done = joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(opener.run)(source, point) for _, source, point in tasks)
    found: dict[str, list[Trial]] = {name: [] for name in subjects}
    for (name, _, _), trial in zip(tasks, done, strict=True):
        found[name].append(trial)
    return found


def _compare(search: Search, winner: int, ours: list[Trial], name: str, theirs: list[Trial], reference: list[Trial]) -> HeldOut:
    metric = search.study.objective
    points = search.splits.held_out
    wrong = next((f"{trial.workload}: {trial.reason}" for trial in ours if trial.reason), "")
    both = [(a, b, c) for a, b, c in zip(ours, theirs, reference, strict=True) if not (a.reason or b.reason or c.reason)]
    mean: Callable[[list[float]], float] = lambda values: math.fsum(values) / len(values) if values else math.nan  # noqa: E731
    values = [mean([trio[i].metrics[metric.name] for trio in both]) for i in (0, 1)]
    bounds = [a.bound for a, _, _ in both if a.bound is not None]
    bound = mean(bounds) if len(bounds) == len(both) else math.nan
    make = functools.partial(HeldOut, winner, name, objective=values[0], baseline_objective=values[1], bound=bound, trials=len(both))
    if wrong or not both:
        return make(gain=math.nan, low=math.nan, high=math.nan, void=wrong or f"the baseline {name} is void on every held-out trial")
    blocks: dict[int, list[tuple[float, float]]] = {}
    for point, a, b, c in zip(points, ours, theirs, reference, strict=True):
        if a.reason or b.reason or c.reason:
            continue
        base = c.metrics[metric.name]
        blocks.setdefault(point.group, []).append(
            (quality(a.metrics[metric.name], a.bound, metric, base), quality(b.metrics[metric.name], b.bound, metric, base))
        )
    shaped: list[Block] = [
        (tuple(range(1000 * group, 1000 * group + len(pairs))), np.array([x for x, _ in pairs]), np.array([y for _, y in pairs]))
        for group, pairs in blocks.items()
        if len(pairs) > 1
    ]
    if not shaped:
        return make(gain=math.nan, low=math.nan, high=math.nan)
    low, estimate, high = interval(shaped, LEVEL)
    return make(gain=estimate - 1, low=low - 1, high=high - 1)


def plain(verdict: HeldOut) -> dict[str, Any]:
    """A verdict as JSON takes it."""
    from dataclasses import asdict

    found = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(verdict).items()}
    return found | {"text": str(verdict), "is_improvement": verdict.is_improvement}


def _verdict(known: dict[str, Any]) -> HeldOut:
    found: dict[str, Any] = {each.name: math.nan if known[each.name] is None else known[each.name] for each in fields(HeldOut)}
    return HeldOut(**found)
