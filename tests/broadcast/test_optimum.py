from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings

from cloudchamber.broadcast import Broadcast, BroadcastStudy, Job, Transfer, least_cost, measured, run, steiner_tree
from cloudchamber.broadcast.simulator import violation

from .worlds import all_trees, spec, worlds

STUDY = BroadcastStudy()


def test_steiner_tree_uses_a_relay_that_pays():
    price = [[0, 1, 9, 9], [9, 0, 1, 1], [9, 9, 0, 9], [9, 9, 9, 0]]
    assert steiner_tree(spec(price).price_usd_gb, 0, (2, 3)) == (3.0, ((0, 1), (1, 2), (1, 3)))


def test_unreachable_destinations_have_no_tree():
    assert steiner_tree(spec([[0, 1, None], [1, 0, None], [1, 1, 0]]).price_usd_gb, 0, (2,))[0] == np.inf


@given(worlds())
def test_steiner_tree_is_the_cheapest_of_all_trees(world):
    network, job = world
    dollars, tree = steiner_tree(network.price_usd_gb, job.source, job.destinations)
    every = min(sum(network.price_usd_gb[link] for link in each) for each in all_trees(network, job))
    assert dollars == pytest.approx(every)
    assert violation(tree, network, job) == ""
    assert sum(network.price_usd_gb[link] for link in tree) == pytest.approx(dollars)


@settings(max_examples=25)
@given(worlds(most=4))
def test_no_broadcast_costs_less_than_the_bound(world):
    """Every choice of trees for the partitions, both timings."""
    network, job = world
    job = Job(job.source, job.destinations, job.volume_gb, min(job.partitions, 2))
    least = least_cost(network, job).cost_usd
    trees = list(all_trees(network, job))[:40]
    for chosen in combinations_with_replacement(trees, job.partitions):
        assert measured(Broadcast(chosen), network, job).cost_usd >= least * (1 - 1e-9)


@given(worlds())
def test_no_policy_beats_the_bound(world):
    network, job = world
    least = least_cost(network, job).cost_usd
    for name, make in STUDY.policies().items():
        done = run(make(), network, job, np.random.default_rng(0))
        assert isinstance(done, Transfer), name
        assert done.cost_usd >= least * (1 - 1e-9), name


def test_many_destinations_have_a_bound_that_is_not_exact():
    rng = np.random.default_rng(0)
    network = spec(rng.uniform(0.01, 0.2, (14, 14)))
    job = Job(0, tuple(range(1, 13)), 30.0, 2)
    least = least_cost(network, job)
    assert not least.is_exact and 0 < least.cost_usd <= run(STUDY.policies()["TakahashiMatsuyama"](), network, job, rng).cost_usd


def test_bound_is_exact_where_the_cheapest_tree_is_the_fastest():
    network = spec([[0, 0.1, 0.3], [0.3, 0, 0.1], [0.3, 0.3, 0]])
    least = least_cost(network, Job(0, (1, 2), 30.0, 1))
    assert least.is_exact and least.transfer.cost_usd == pytest.approx(least.cost_usd)


@pytest.mark.data
def test_least_egress_of_the_published_jobs(cloudcast):
    least = [least_cost(*cloudcast.world(seed)) for seed in range(5)]
    assert sum(each.egress_usd for each in least) == pytest.approx(618.0)
    assert 618.0 < sum(each.cost_usd for each in least) < 618.1
