from __future__ import annotations

import math

import pytest

from cloudchamber.core.outcome import Bound, Outcome
from cloudchamber.evolve.verdict import HeldOut, judge

from .test_search import BETTER
from .toy.model import Price
from .toy.policies.by_size import BySize
from .toy.policies.flat import Flat
from .toy.study import PricingStudy


class Sharp(BySize):
    """Knows the right price."""

    def price(self, item):
        return Price(2 * item.size + 3 * item.age)


def told(search, source):
    return search.tell(search.ask()[0].id, source)


class Strict(PricingStudy):
    """A policy that looks at the age is void on held-out trials: those with a seed in ``void``."""

    def __init__(self, void):
        self.void = void

    def trial(self, policy, workload, seed):
        outcome = super().trial(policy, workload, seed)
        return Outcome.void("too clever") if seed in self.void and outcome.metrics["cost"] < 1.4 else outcome


def test_known_improvement_is_shown_with_an_interval_above_zero(search_on):
    search = search_on(trials=(2, 2, 12))
    told(search, BETTER.format(rate=3.0))
    verdict = judge(search)[0]
    assert verdict.is_improvement and 0 < verdict.low <= verdict.gain <= verdict.high
    assert verdict.objective == pytest.approx(1.0) and verdict.bound == 1.0 and verdict.baseline == "BySize"
    assert str(verdict).startswith("improvement: +") and verdict.trials == 24


def test_gain_is_the_ratio_of_mean_qualities_of_the_same_trials(search_on):
    search = search_on(trials=(2, 2, 5), workloads=("young",))
    told(search, BETTER.format(rate=3.0))
    verdict = judge(search)[0]
    opener, start = search.evaluator.opener, search.starts[0].source
    theirs = [1.0 / opener.run(start, point).metrics["cost"] for point in search.splits.held_out]
    assert verdict.gain == pytest.approx(1.0 / (math.fsum(theirs) / 5) - 1)


def test_no_difference_is_no_improvement(search_on):
    search = search_on()
    verdict = judge(search)[0]  # the start is its own winner
    assert not verdict.is_improvement and verdict.gain == verdict.low == verdict.high == 0.0
    assert str(verdict).startswith("no improvement shown")


def test_worse_on_held_out_trials_is_no_improvement():
    assert not HeldOut(1, "A", -0.1, -0.2, -0.05, 1.2, 1.0, 1.0, 12).is_improvement
    assert not HeldOut(1, "A", 0.1, -0.01, 0.2, 1.2, 1.0, 1.0, 12).is_improvement


def test_void_winner_says_so(search_on):
    study = Strict(set())
    search = search_on(study=study)
    told(search, BETTER.format(rate=3.0))
    study.void |= {point.seed for point in search.splits.held_out[:1]}
    for verdict in judge(search):
        assert not verdict.is_improvement and math.isnan(verdict.gain) and "too clever" in verdict.void
        assert str(verdict).startswith(f"candidate {verdict.candidate} is void on the held-out trials")
    kept = search.store["verdict"]
    assert kept[0]["gain"] is None and kept[0]["is_improvement"] is False


def test_trials_where_the_baseline_is_void_do_not_count(search_on):
    class Picky(PricingStudy):
        void = frozenset()

        def trial(self, policy, workload, seed):
            outcome = super().trial(policy, workload, seed)
            return Outcome.void("too dull") if seed in self.void and outcome.metrics["cost"] > 1.4 else outcome

    study = Picky()
    search = search_on(study=study, trials=(2, 2, 4), workloads=("old",))
    told(search, BETTER.format(rate=3.0))
    study.void = {search.splits.held_out[0].seed}
    assert judge(search)[0].trials == 3
    search.store["verdict"] = None
    study.void = {point.seed for point in search.splits.held_out}
    assert "baseline BySize is void on every held-out trial" in judge(search)[0].void


def test_best_sibling_is_named_though_the_search_did_not_start_from_it(search_on):
    class Rich(PricingStudy):
        def policies(self):
            return {"BySize": BySize, "Flat": Flat, "Sharp": Sharp}

    search = search_on(study=Rich(), siblings=False)
    told(search, BETTER.format(rate=2.0))
    verdicts = judge(search)
    assert [each.baseline for each in verdicts] == ["BySize", "Sharp"]
    assert verdicts[0].is_improvement and not verdicts[1].is_improvement and verdicts[1].gain < 0


def test_baseline_is_what_the_winner_descends_from_and_the_best_start(search_on):
    search = search_on(start=None)
    starts = {each.note: each for each in search.starts}
    best = max(starts.values(), key=lambda each: each.score)
    worst = min(starts.values(), key=lambda each: each.score)
    task = search.ask()[0]
    search.store._db.execute("UPDATE task SET parents = ? WHERE id = ?", (f"[{worst.number}]", task.id))
    search.tell(task.id, BETTER.format(rate=3.0))
    assert [each.baseline for each in judge(search)] == [worst.note, best.note]


def test_without_a_bound_quality_is_relative_to_the_start(search_on):
    class Unbounded(PricingStudy):
        def bound(self, workload, seed):
            return None

    search = search_on(study=Unbounded())
    told(search, BETTER.format(rate=3.0))
    verdict = judge(search)[0]
    assert verdict.is_improvement and math.isnan(verdict.bound) and search.store["verdict"][0]["bound"] is None


def test_bound_of_a_maximised_objective_is_above(search_on):
    from cloudchamber.core.outcome import Metric

    class Reversed(PricingStudy):
        metrics = (Metric("worth", "USD", direction="max"), *PricingStudy.metrics[1:])

        def trial(self, policy, workload, seed):
            outcome = super().trial(policy, workload, seed)
            return Outcome(
                {"worth": 10 - outcome.metrics["cost"], "dearest": outcome.metrics["dearest"], "spread": outcome.metrics["spread"]}
            )

        def bound(self, workload, seed):
            return Bound(9.0, False)

    search = search_on(study=Reversed())
    told(search, BETTER.format(rate=3.0))
    verdict = judge(search)[0]
    assert verdict.is_improvement and verdict.objective == pytest.approx(9.0)


def test_every_verdict_is_counted_and_kept(search_on):
    search = search_on()
    judge(search)
    assert search.store["verdicts"] == 1
    told(search, BETTER.format(rate=3.0))
    again = judge(search)
    assert search.store["verdicts"] == 2 and search.store["verdict"][0]["text"] == str(again[0])


def test_workers_do_not_change_a_verdict(search_on):
    search = search_on(trials=(1, 1, 2), workloads=("young",))
    assert judge(search) == judge(search, n_jobs=2)


def test_one_trial_of_each_workload_is_too_little(search_on):
    search = search_on(1, workloads=("few",), trials=(9, 9, 9))
    search.splits = type(search.splits)(search.splits.smoke, search.splits.training, search.splits.validation, search.splits.held_out[:1])
    verdict = judge(search)[0]
    assert not verdict.is_improvement and "fewer than two valid held-out trials" in str(verdict)
