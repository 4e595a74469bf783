from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from cloudchamber.core.errors import CandidateError
from cloudchamber.core.policy import clone
from cloudchamber.spot import DeadlineGuard, Decision, GreedySpot, Keep, Launch, OnDemandOnly, Simulator, SpotStudy, Ticks
from cloudchamber.spot.simulator import audit, next_price_change

from .worlds import RandomPolicy, ReplaySimulator, market, worlds

POLICIES = SpotStudy().policies()


def run(world, policy, seed=0):
    return world.run(policy, np.random.default_rng(seed), show_future=getattr(policy, "clairvoyant", False))


def test_on_demand_bills_cold_start_and_work():
    world = Simulator(market(["0000000"], on_demand=4.0), Ticks(work=3, deadline=7, cold_start=2))
    done = run(world, OnDemandOnly())
    assert done.spent_usd["on_demand_usd"] == pytest.approx(5 * 4.0)
    assert done.progress.tolist() == [0, 0, 0, 1, 2, 3]


def test_preempted_spot_loses_its_place_and_pays_another_cold_start():
    world = Simulator(market(["1110111111"], spot=1.0), Ticks(work=4, deadline=10, cold_start=1))
    done = run(world, GreedySpot(0))
    assert done.preemptions == 1 and done.launches == 2
    assert done.spent_usd["spot_usd"] == pytest.approx(6.0)
    assert done.state.tolist() == [1, 1, 1, 0, 1, 1, 1]


def test_migration_pays_egress_once_and_a_refused_launch_nothing():
    class Mover:
        def reset(self, spec, rng):
            pass

        def decide(self, obs):
            return Decision((Launch(2, "spot"), Launch(int(obs.time_s >= 7200), "spot")), until_s=None)

    world = Simulator(market(["1" * 20, "1" * 20, "0" * 20], egress=0.5), Ticks(4, 20, 1), checkpoint_gb=2.0)
    done = run(world, Mover())
    assert done.spent_usd["egress_usd"] == pytest.approx(1.0)
    assert done.migrations == 1 and done.failed_launches == len(done.state)
    assert audit(done, world) == ()


def test_only_a_successful_probe_is_billed():
    class Prober:
        def reset(self, spec, rng):
            self.seen = []

        def decide(self, obs):
            self.seen += obs.probes
            return Decision((Launch(0, "on_demand"),), probes=(0, 1) if obs.time_s == 0 else (), until_s=None)

    policy = Prober()
    world = Simulator(market(["111111", "000000"], spot=6.0), Ticks(3, 6, 0), probe_s=60)
    done = run(world, policy)
    assert done.spent_usd["probe_usd"] == pytest.approx(0.1)
    assert [(probe.zone, probe.available) for probe in policy.seen] == [(0, True), (1, False)]


@settings(max_examples=60)
@given(worlds())
def test_every_policy_agrees_with_the_plain_python_world(case):
    made, job, gb = case
    world = Simulator(made, job, checkpoint_gb=gb)
    for make in POLICIES.values():
        policy = make()
        if policy.clairvoyant:
            continue
        done = run(world, policy, seed=3)
        guard = DeadlineGuard(clone(policy))
        guard.reset(world.spec, np.random.default_rng(3))
        cost, log = ReplaySimulator(made, job, gb).run(guard)
        assert done.total_usd == pytest.approx(cost, abs=1e-9)
        assert list(zip(done.state.tolist(), done.zone.tolist(), strict=True)) == log


@settings(max_examples=60)
@given(worlds())
def test_any_policy_is_audited_clean_and_bills_every_started_tick(case):
    made, job, gb = case
    world = Simulator(made, job, checkpoint_gb=gb)
    for policy in (RandomPolicy(), *(make() for make in POLICIES.values())):
        done = run(world, policy)
        assert audit(done, world) == ()
        assert done.cost_usd[-1] == pytest.approx(done.total_usd)


def test_audit_finds_a_doctored_log():
    world = Simulator(market(["1101111111"]), Ticks(4, 10, 1))
    done = run(world, GreedySpot(0))
    done.state[2], done.zone[2] = 1, 0
    assert any("not there" in wrong for wrong in audit(done, world))
    assert any("ledger" in wrong for wrong in audit(done, world))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "must return a Decision"),
        (Decision((Launch(7, "spot"),)), "index from 0 to 0, got 7"),
        (Decision((Launch(0, "cheap"),)), "'spot' or 'on_demand'"),
        (Decision(("keep",)), "allowed: Launch, Keep, Idle"),
        (Decision(until_s=float("nan")), "seconds or None"),
        (Decision([Keep()]), "must be tuples"),
        (Decision(probes=(-1,)), "index from 0"),
    ],
)
def test_wrong_answers_end_the_trial_with_advice(answer, message):
    class Wrong:
        def reset(self, spec, rng):
            pass

        def decide(self, obs):
            return answer

    with pytest.raises(CandidateError, match=message):
        run(Simulator(market(["111111"]), Ticks(2, 6, 1)), Wrong())


def test_policy_never_sees_the_trace():
    class Peeking:
        def reset(self, spec, rng):
            assert spec.future is None

        def decide(self, obs):
            assert not obs.spot_usd_h.flags.writeable
            return Decision((Launch(0, "spot"),), until_s=None)

    assert run(Simulator(market(["111111"]), Ticks(2, 6, 1)), Peeking()).is_finished


def test_next_price_change_names_the_tick_after():
    prices = np.array([[1.0], [1.0], [2.0], [2.0], [3.0]])
    assert next_price_change(prices).tolist() == [2, 2, 4, 4, 5]


def test_neither_observation_nor_spec_leads_to_the_worlds_own_arrays():
    class Vandal:
        def reset(self, spec, rng):
            base = spec.egress_usd.base if spec.egress_usd.base is not None else spec.egress_usd
            base.flags.writeable = True
            base[:] = 1e6

        def decide(self, obs):
            base = obs.spot_usd_h.base
            assert base is None or base.shape == obs.spot_usd_h.shape  # one row of prices, not the window
            return Decision((Launch(int(obs.time_s > 7200), "spot"),), until_s=None)

    world = Simulator(market(["1" * 20, "1" * 20], egress=0.5), Ticks(4, 20, 1), checkpoint_gb=2.0)
    done = run(world, Vandal())
    assert done.spent_usd["egress_usd"] == pytest.approx(1.0) and audit(done, world) == ()
