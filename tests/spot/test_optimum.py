from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import clone
from cloudchamber.spot import Simulator, SpotStudy, Ticks, Zone, offline_optimum
from cloudchamber.spot.study import _schedule_outcome
from cloudchamber.spot.workloads import World

from .worlds import brute_force_optimum, market, worlds

POLICIES = SpotStudy().policies()


def test_waits_for_cheap_capacity_when_there_is_time():
    world = market(["000111111"], spot=1.0, on_demand=4.0)
    best = offline_optimum(world, Ticks(work=3, deadline=9, cold_start=1))
    assert best.cost_usd == pytest.approx(4.0)  # one cold tick and three of work, all on spot
    assert best.state.tolist()[-4:] == [1, 1, 1, 1]


def test_goes_on_demand_when_the_deadline_leaves_no_choice():
    world = market(["000111111"], spot=1.0, on_demand=4.0)
    assert offline_optimum(world, Ticks(work=3, deadline=4, cold_start=1)).cost_usd == pytest.approx(16.0)


def test_pays_egress_only_between_regions_and_never_for_the_first_launch():
    apart = market(["1100000", "0011111"], regions=["a", "b"], egress=1.0)
    together = market(["1100000", "0011111"], regions=["a", "a"], egress=1.0)
    job = Ticks(work=5, deadline=7, cold_start=0)
    assert offline_optimum(apart, job, checkpoint_gb=0.5).cost_usd == pytest.approx(5.0)  # wait for b: no move
    tight = Ticks(work=6, deadline=7, cold_start=0)
    assert offline_optimum(apart, tight, checkpoint_gb=0.5).cost_usd == pytest.approx(6.5)
    assert offline_optimum(together, tight, checkpoint_gb=0.5).cost_usd == pytest.approx(6.0)


def test_goes_by_way_of_a_third_region_where_that_is_cheaper():
    """From a to b directly costs 9; one tick of c between them costs 1 + 1 + 0.5."""
    made = market(["11100000000", "00000111111", "11111111111"], spot=[1.0, 1.0, 0.5], on_demand=50.0, regions=["a", "b", "c"])
    cheap = np.array([[0.0, 9.0, 1.0], [9.0, 0.0, 1.0], [9.0, 1.0, 0.0]])
    made = replace(
        made,
        egress_usd_gb=cheap,
        available=made.available & np.array([[True, True, False]]) | (np.arange(11) == 4)[:, None] & [[False, False, True]],
    )
    best = offline_optimum(made, Ticks(3, 11, 2), checkpoint_gb=1.0)
    assert best.cost_usd == pytest.approx(brute_force_optimum(made, Ticks(3, 11, 2), 1.0))
    assert _schedule_outcome(best.cost_usd, best.state, best.zone, World(made, Ticks(3, 11, 2), 1.0, 60.0)).violations == ()


def test_refuses_a_market_shorter_than_the_deadline():
    with pytest.raises(InputError, match="runs past the trace"):
        offline_optimum(market(["111"]), Ticks(2, 4, 1))


@settings(max_examples=150)
@given(worlds(max_zones=3, max_ticks=14))
def test_equals_brute_force(case):
    made, job, gb = case
    assert offline_optimum(made, job, checkpoint_gb=gb).cost_usd == pytest.approx(brute_force_optimum(made, job, gb), abs=1e-9)


@given(worlds())
def test_its_schedule_costs_what_it_says(case):
    made, job, gb = case
    best = offline_optimum(made, job, checkpoint_gb=gb)
    outcome = _schedule_outcome(best.cost_usd, best.state, best.zone, World(made, job, gb, 60.0))
    assert outcome.violations == ()


@settings(max_examples=40)
@given(worlds())
def test_no_policy_is_cheaper(case):
    made, job, gb = case
    best = offline_optimum(made, job, checkpoint_gb=gb).cost_usd
    world = Simulator(made, job, checkpoint_gb=gb)
    for make in POLICIES.values():
        policy = clone(make())
        run = world.run(policy, np.random.default_rng(0), show_future=policy.clairvoyant)
        assert run.is_finished and run.total_usd >= best - 1e-6


@settings(max_examples=40)
@given(worlds())
def test_more_time_more_zones_and_lower_prices_never_cost_more(case):
    made, job, gb = case
    base = offline_optimum(made, job, checkpoint_gb=gb).cost_usd
    if job.deadline > job.work + job.cold_start:
        sooner = replace(job, deadline=job.deadline - 1)
        assert offline_optimum(made, sooner, checkpoint_gb=gb).cost_usd >= base - 1e-9
    cheaper = replace(made, spot_usd_h=made.spot_usd_h * 0.9)
    assert offline_optimum(cheaper, job, checkpoint_gb=gb).cost_usd <= base + 1e-9
    if len(made.zones) > 1:
        fewer = made.select(tuple(zone.name for zone in made.zones[:-1]))
        assert offline_optimum(fewer, job, checkpoint_gb=gb).cost_usd >= base - 1e-9


def test_too_many_zones_is_refused_with_advice():
    wide = market(["1111"] * 300)
    assert isinstance(wide.zones[0], Zone)
    with pytest.raises(InputError, match="select fewer zones"):
        offline_optimum(wide, Ticks(1, 4, 1))
