from __future__ import annotations

import numpy as np
import pytest

from cloudchamber import study
from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.parallel import run_task
from cloudchamber.core.registry import load_study
from cloudchamber.moe.balance import (
    EWMA,
    BalanceState,
    ClusterSpec,
    CostBenefit,
    Every,
    GreedyEPLB,
    Last,
    Plan,
    Quantile,
    Simulator,
    Static,
    StepCost,
    Threshold,
    WindowMean,
)
from cloudchamber.moe.balance.simulator import audit

SPEC = ClusterSpec(1, 2, 4, 2, steps=10, expert_mb=1000, bandwidth_gb_s=2)
HISTORY = np.array([[[30, 10]], [[10, 30]], [[20, 20]]])


class Scripted:
    """Answers with given tables, one after the other, and notes what it was shown."""

    def __init__(self, *tables):
        self.tables, self.seen = list(tables), []

    def reset(self, spec, rng):
        pass

    def plan(self, load, prev):
        self.seen.append((load.tolist(), None if prev is None else prev.phy2log.tolist()))
        return Plan(np.array([self.tables[len(self.seen) - 1]]))


def run(*tables, history=HISTORY, spec=SPEC, **rest):
    policy = Scripted(*tables)
    return Simulator(history, spec, **rest).run(policy, np.random.default_rng(0)), policy


def test_a_trial_by_hand():
    done, policy = run([0, 0, 1, 1], [0, 1, 0, 1])
    assert [load for load, _ in policy.seen] == [[[30, 10]], [[10, 30]]]
    assert [prev for _, prev in policy.seen] == [None, [[0, 0, 1, 1]]]
    assert done.device_load.tolist() == [[[10, 30]], [[20, 20]]]
    assert done.sent.tolist() == [0, 2]  # the first plan is loaded; then each device gets the expert it lacks
    assert done.move_s.tolist() == [0, 0.5]
    cost = StepCost()
    first = max(cost.token_s * 1 + cost.slot_s * 2, cost.token_s * 3 + cost.slot_s * 2) + cost.sent_s * 3 + cost.layer_s
    assert done.step_s[0] == pytest.approx(first)


def test_slots_without_tokens_are_not_read():
    spec = ClusterSpec(1, 2, 2, 1, steps=1)
    cost = StepCost(token_s=0, slot_s=1, sent_s=0, layer_s=0)
    done = Simulator(np.array([[[1, 1]], [[5, 0]]]), spec, cost=cost).run(Static(), np.random.default_rng(0))
    assert done.step_s.tolist() == [1.0]


def test_a_plan_sees_only_windows_that_are_over():
    future = HISTORY.copy()
    future[2] = [[7, 3]]
    assert run([0, 0, 1, 1], [0, 1, 0, 1])[1].seen == run([0, 0, 1, 1], [0, 1, 0, 1], history=future)[1].seen


@pytest.mark.parametrize(
    ("predictor", "expected"),
    [(Last(), [10, 30]), (EWMA(0.25), [25, 15]), (WindowMean(2), [20, 20]), (WindowMean(1), [10, 30]), (Quantile(1.0), [30, 30])],
)
def test_predictors_by_hand(predictor, expected):
    assert predictor.predict(HISTORY[:2]).tolist() == [expected]


def test_triggers_by_hand():
    state = BalanceState(window=3, since=2, balancedness=0.7, step_s=2.0, even_step_s=1.5, steps=10, move_s=30.0)
    assert Every(2).should(state) and not Every(3).should(state)
    assert Threshold(0.8).should(state) and not Threshold(0.7).should(state)
    assert CostBenefit(7).should(state) and not CostBenefit(6).should(state)


def test_no_plan_is_asked_for_until_the_trigger_says_so():
    done, policy = run([0, 0, 1, 1], trigger=Every(5))
    assert done.asked == 1 and len(policy.seen) == 1 and len(done.plans) == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "must return a Plan, got NoneType"),
        ([[0, 1, 0, 1]], "must return a Plan, got list"),
        (Plan(np.array([[0, 0, 0, 0]])), "expert 1 of layer 0 has no slot"),
        (Plan(np.array([[0, 1, 0]])), "shape"),
        (Plan(np.array([[0, 1, 2, 0]])), "experts are 0 to 1"),
        (Plan(np.array([[0, 1, -1, 0]])), "experts are 0 to 1"),
        (Plan(np.array([[0.0, 1, 0, 1]])), "whole numbers"),
        (Plan(np.array([[False, True, False, True]])), "whole numbers"),
    ],
)
def test_anything_but_a_valid_plan_is_void(answer, says):
    class Forger:
        def reset(self, spec, rng): ...
        def plan(self, load, prev):
            return answer

    with pytest.raises(CandidateError, match=says):
        Simulator(HISTORY, SPEC).run(Forger(), np.random.default_rng(0))


def test_forged_maps_do_not_reach_the_score():
    """Attack 13: many experts in one slot, behind maps that say otherwise. A plan with maps of its own is not a Plan."""

    class Forged(Plan, frozen=True):
        def count(self, experts):
            return np.full((1, experts), 99)

        def check(self, spec):
            pass

    class Forger(Static):
        def plan(self, load, prev):
            return Forged(np.zeros((1, 4), dtype=int))

    trial = run_task(load_study("moe.balance"), {"forger": Forger}, load_study("moe.balance").workloads()["smoke"], 0)[1][0]
    assert trial.outcome.is_void and "must return a Plan, got Forged" in trial.outcome.violations[0]


def test_spoiling_what_was_shown_gains_nothing():
    """Attacks 2 and 3: overwrite the load and the plan in place, then let an honest policy run in the same process."""

    class Spoiler(GreedyEPLB):
        def plan(self, load, prev):
            answer = super().plan(load, prev)
            load[:] = 1.0
            if prev is not None:
                base = prev.phy2log if prev.phy2log.base is None else prev.phy2log.base
                base.flags.writeable = True
                base[:] = 0
            self.answers_ = [*getattr(self, "answers_", []), answer]
            for each in self.answers_:  # and its own answers, after they were given
                base = each.phy2log if each.phy2log.base is None else each.phy2log.base
                if len(self.answers_) > 1 and each is not answer:
                    base.flags.writeable = True
                    base[:] = np.sort(base, axis=1)
            return answer

    alone = study("moe.balance", ["GreedyEPLB"], ["smoke"])
    together = study("moe.balance", [Spoiler, "GreedyEPLB"], ["smoke"])
    honest = [trial.outcome.metrics["balancedness"] for trial in alone.trials]
    for name in ("Spoiler", "GreedyEPLB"):
        assert [trial.outcome.metrics["balancedness"] for trial in together.of("smoke", name)] == honest


def test_rewriting_the_specification_gains_nothing():
    """Attack 5: make experts weigh nothing. What the policy holds is a copy."""
    import msgspec

    class Physicist(GreedyEPLB):
        def reset(self, spec, rng):
            super().reset(spec, rng)
            msgspec.structs.force_setattr(spec, "expert_mb", 1e-9)
            msgspec.structs.force_setattr(spec, "steps", 1)

    results = study("moe.balance", [Physicist, "GreedyEPLB"], ["smoke"])
    cheats, honest = ([trial.outcome.metrics for trial in results.of("smoke", name)] for name in ("Physicist", "GreedyEPLB"))
    assert [each["total_s"] for each in cheats] == [each["total_s"] for each in honest]


def test_plan_time_is_the_worlds_and_counts_the_set_up():
    """Attacks 21 and 22: work done in reset is counted, and the time decides nothing else."""
    from time import sleep

    class Slow(Static):
        def reset(self, spec, rng):
            super().reset(spec, rng)
            sleep(0.06)

    results = study("moe.balance", [Slow, "Static"], ["smoke"], seeds=1)
    slow, fast = (trial.outcome.metrics for trial in results.trials)
    assert slow["plan_s"] >= 0.02 > fast["plan_s"]
    assert {k: v for k, v in slow.items() if k != "plan_s"} == {k: v for k, v in fast.items() if k != "plan_s"}


def test_random_and_static_are_at_the_floor():
    rows = {row.policy: row.mean for row in study("moe.balance", workloads=["drift-64e"], seeds=2).summary()}
    worst = min(mean for name, mean in rows.items() if name not in ("Static", "RandomPlan"))
    assert max(rows["Static"], rows["RandomPlan"]) < 0.75 * worst


def test_an_exception_on_one_window_makes_the_trial_void():
    class Picky(GreedyEPLB):
        def plan(self, load, prev):
            if prev is not None:
                raise ValueError("too hard")
            return super().plan(load, prev)

    trial = run_task(load_study("moe.balance"), {"p": Picky}, load_study("moe.balance").workloads()["smoke"], 0)[1][0]
    assert trial.outcome.is_void and trial.outcome.metrics == {}


def test_audit_finds_tokens_that_were_made_up():
    done, _ = run([0, 0, 1, 1], [0, 1, 0, 1])
    world = Simulator(HISTORY, SPEC)
    assert audit(done, world) == ()
    done.device_load[1] *= 2
    assert audit(done, world) == ("window 1: tokens were lost or made up",)


def test_a_history_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="two windows or more"):
        Simulator(HISTORY[:1], SPEC)
    with pytest.raises(InputError, match="got \\(3, 1, 2\\)"):
        Simulator(HISTORY, ClusterSpec(1, 4, 4, 2))


def test_a_window_without_any_tokens_is_balanced():
    quiet = Simulator(np.zeros((3, 1, 2), dtype=np.int64), SPEC)
    assert quiet.run(Static(), np.random.default_rng(0)).device_load.sum() == 0
