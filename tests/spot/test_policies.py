from __future__ import annotations

import numpy as np
import pytest

from cloudchamber.core.errors import CandidateError
from cloudchamber.spot import (
    GreedyMulti,
    GreedySpot,
    OnDemandOnly,
    Oracle,
    Simulator,
    SkyNomad,
    Ticks,
    UniformProgress,
    UniformProgressAvailability,
    UniformProgressSwitch,
)
from cloudchamber.spot.policies.skynomad import VALUES

from .worlds import market


def run(world, policy, seed=0):
    return world.run(policy, np.random.default_rng(seed), show_future=getattr(policy, "clairvoyant", False))


def test_greedy_without_zone_draws_every_zone():
    world = Simulator(market(["1" * 20] * 4), Ticks(3, 20, 1))
    assert {int(run(world, GreedySpot(), seed).zone[0]) for seed in range(40)} == {0, 1, 2, 3}


def test_zone_that_is_not_there_is_refused():
    with pytest.raises(CandidateError, match="index from 0 to 0, got 3"):
        run(Simulator(market(["1111"]), Ticks(1, 4, 1)), GreedySpot(3))


def test_greedy_multi_takes_the_cheapest_that_is_up():
    world = Simulator(market(["0" * 20, "1" * 20, "1" * 20], spot=[1.0, 3.0, 2.0]), Ticks(3, 20, 1))
    assert run(world, GreedyMulti()).zone.tolist() == [2, 2, 2, 2]


def test_uniform_progress_waits_while_ahead_and_buys_when_behind():
    world = Simulator(market(["0" * 40]), Ticks(10, 40, 1))
    done = run(world, UniformProgress(0))
    on_demand = np.flatnonzero(done.state == 2)
    assert on_demand[0] == 1  # behind the line from the first tick on
    assert done.is_finished


def test_uniform_progress_returns_to_spot_with_a_lead_of_two_cold_starts():
    world = Simulator(market(["0" * 3 + "1" * 37]), Ticks(10, 40, 1))
    done = run(world, UniformProgress(0))
    first_spot = int(np.flatnonzero(done.state == 1)[0])
    pace = 10 / 40
    assert done.progress[first_spot] > (first_spot + 2) * pace
    assert done.progress[first_spot - 1] <= (first_spot - 1 + 2) * pace


def test_failover_tries_the_dead_zone_last():
    world = Simulator(market(["1110" + "1" * 20, "0001" + "1" * 20, "1" * 24], spot=[1.0, 2.0, 3.0]), Ticks(10, 24, 1))
    done = run(world, UniformProgressSwitch())
    assert done.zone[3] == 1


def test_availability_policy_probes_every_zone_when_due():
    world = Simulator(market(["0" * 20 + "1" * 40, "0" * 20 + "1" * 40], tick_s=600), Ticks(40, 60, 1))
    done = run(world, UniformProgressAvailability(probe_every_s=6000))
    assert done.spent_usd["probe_usd"] == pytest.approx(2 * 1.0 / 60)  # refused ones are free, and on spot there are none


def test_skynomad_leaves_a_zone_that_keeps_dying():
    flaky, steady = "110" * 40, "1" * 120
    world = Simulator(market([flaky, steady], spot=[1.0, 1.3], on_demand=20.0, tick_s=600), Ticks(70, 120, 1))
    done = run(world, SkyNomad())
    assert done.preemptions < 0.4 * run(world, GreedySpot(0)).preemptions


def test_skynomad_does_not_cross_an_ocean_for_pennies():
    world = Simulator(
        market(["0" * 2 + "1" * 118, "1" * 120], spot=[0.99, 1.0], tick_s=600, egress=2.0), Ticks(70, 120, 1), checkpoint_gb=50
    )
    assert run(world, SkyNomad()).migrations == 0


def test_skynomad_never_stops_running_spot_to_idle():
    world = Simulator(market(["1" * 200, "1" * 200], spot=[3.0, 3.2], on_demand=4.0, tick_s=600), Ticks(80, 200, 1))
    done = run(world, SkyNomad())
    started = int(np.flatnonzero(done.state == 1)[0])
    assert (done.state[started:] == 1).all()


@pytest.mark.parametrize("value", VALUES)
def test_every_value_form_finishes(value):
    world = Simulator(market(["1" * 5 + "0" * 10 + "1" * 45], tick_s=600), Ticks(20, 60, 1))
    assert run(world, SkyNomad(value)).is_finished


def test_oracle_lifetimes_are_only_for_those_shown_the_future():
    world = Simulator(market(["1" * 20]), Ticks(4, 20, 1))
    assert run(world, SkyNomad(lifetime=Oracle())).is_finished
    with pytest.raises(CandidateError, match="needs the future"):
        world.run(SkyNomad(lifetime=Oracle()), np.random.default_rng(0))


def test_on_demand_takes_the_cheapest_zone():
    assert run(Simulator(market(["1" * 9, "1" * 9], on_demand=[5.0, 4.0]), Ticks(4, 9, 1)), OnDemandOnly()).zone[0] == 1
