from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from cloudchamber.core.errors import CandidateError
from cloudchamber.spot import DeadlineGuard, Decision, Idle, Keep, Launch, Simulator, SpotObs, SpotStudy, Ticks

from .worlds import RandomPolicy, market, worlds

POLICIES = SpotStudy().policies()


class Fixed:
    def __init__(self, *prefs, until_s=None):
        self.decision = Decision(tuple(prefs), until_s=until_s)

    def reset(self, spec, rng):
        pass

    def decide(self, obs):
        return self.decision


def guarded(policy, cold=2, work=4, deadline=20):
    guard = DeadlineGuard(policy)
    guard.reset(
        Simulator(market(["1" * deadline, "1" * deadline], on_demand=[4.0, 3.0]), Ticks(work, deadline, cold)).spec,
        np.random.default_rng(0),
    )
    return guard


def obs(hour, *, progress=0.0, mode="idle", zone=None, cold=0.0):
    return SpotObs(hour * 3600, progress * 3600, mode, zone, zone, cold * 3600, np.array([1.0, 1.0]))


def test_spot_from_idle_needs_twice_the_cold_start_and_a_tick():
    guard = guarded(Fixed(Launch(0, "spot")))
    assert guard.decide(obs(11)).prefs == (Launch(0, "spot"),)  # slack 5 = 2 * 2 + 1
    assert guard.decide(obs(12)).prefs == (Keep(),)  # slack 4: wait, but no spot


def test_waiting_ends_on_the_cheapest_on_demand():
    guard = guarded(Fixed(Idle()))
    assert guard.decide(obs(13)).prefs == (Idle(),)  # slack 3 = 2 + 1
    assert guard.decide(obs(14)).prefs == (Launch(1, "on_demand"),)
    assert guard.committed


def test_warm_spot_may_be_kept_but_not_given_up_without_slack():
    guard = guarded(Fixed(Idle(), Launch(1, "spot")))
    held = obs(14, mode="spot", zone=0)
    assert guard.decide(held).prefs == (Keep(),)


def test_standing_order_ends_before_slack_runs_out():
    guard = guarded(Fixed(Launch(0, "spot"), until_s=1e9))
    assert guard.decide(obs(0)).until_s == pytest.approx((16 - 4) * 3600)
    warm = obs(0, mode="spot", zone=0)
    assert guard.decide(warm).until_s == 1e9


@pytest.mark.parametrize("name", ["prefs", "probes"])
def test_an_order_of_absurd_length_is_refused_before_anything_is_done_with_it(name):
    policy = Fixed()
    most = 4 * (len(guarded(policy).spec.zones) + 1)
    entry = Launch(0, "spot") if name == "prefs" else 0
    policy.decision = Decision(**{name: (entry,) * most})
    assert guarded(policy).decide(obs(0))
    policy.decision = Decision(**{name: (entry,) * (most + 1)})
    with pytest.raises(CandidateError, match=rf"{name} holds {most + 1} entries; with 2 zones at most {most} are taken"):
        guarded(policy).decide(obs(0))


def test_committed_on_demand_is_held_to_the_end():
    guard = guarded(Fixed(Idle()))
    guard.decide(obs(14))
    later = guard.decide(obs(16, mode="on_demand", zone=1, cold=0))
    assert later.prefs == (Keep(),) and later.until_s == float("inf")


@settings(max_examples=300)
@given(worlds())
def test_no_policy_is_ever_late(case):
    made, job, gb = case
    world = Simulator(made, job, checkpoint_gb=gb)
    for policy in (RandomPolicy(), *(make() for make in POLICIES.values())):
        done = world.run(policy, np.random.default_rng(1), show_future=getattr(policy, "clairvoyant", False))
        assert done.is_finished


@pytest.mark.slow
@settings(max_examples=10_000)
@given(worlds(max_zones=5, max_ticks=60))
def test_no_policy_is_ever_late_on_ten_thousand_markets(case):
    made, job, gb = case
    world = Simulator(made, job, checkpoint_gb=gb)
    for policy in (RandomPolicy(), *(make() for make in POLICIES.values())):
        done = world.run(policy, np.random.default_rng(1), show_future=getattr(policy, "clairvoyant", False))
        assert done.is_finished
