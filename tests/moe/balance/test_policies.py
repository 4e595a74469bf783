from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.moe.balance import (
    ClusterSpec,
    ExactILP,
    GreedyEPLB,
    Incremental,
    LocalSearch,
    LPTHeap,
    Plan,
    RandomPlan,
    Static,
    Zigzag,
    least_top_load,
    rebalance_experts,
)

from .clusters import best_top_load, clusters, loads, reset
from .reference import rebalance_experts as reference

DOCUMENTED = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
ANSWER = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]
EVERY = (Static(), RandomPlan(), GreedyEPLB(), GreedyEPLB("global"), LPTHeap(), Zigzag(), LocalSearch(), Incremental(), ExactILP(6))
SEPARATING = (Static(), Zigzag(), LocalSearch(), Incremental())
FRESH = (GreedyEPLB("global"), LPTHeap("global"), Zigzag(), LocalSearch())


@pytest.mark.parametrize("policy", [GreedyEPLB(), LPTHeap()], ids=repr)
def test_gives_the_documented_example(policy):
    plan = reset(policy, ClusterSpec(2, 12, 16, 8, 2, 4)).plan(np.array(DOCUMENTED), None)
    assert plan.phy2log.tolist() == ANSWER


def test_the_reference_gives_its_documented_example():
    assert reference(DOCUMENTED, 16, 4, 2, 8) == ANSWER


@pytest.mark.parametrize("policy", [GreedyEPLB(), LPTHeap()], ids=repr)
@pytest.mark.parametrize("ties", [False, True], ids=["different", "ties"])
def test_reproduces_the_reference_on_random_inputs(policy, ties):
    """500 inputs of each kind, so 1,000 for each policy."""
    rng = np.random.default_rng(7)
    case = 0
    while case < 500:
        nodes = int(rng.choice([1, 2, 3]))
        devices, groups = nodes * int(rng.integers(1, 4)), int(rng.choice([1, 2, 4, 6]))
        experts = groups * int(rng.integers(1, 5))
        if groups % nodes == 0 and experts % nodes:
            continue
        case += 1
        least = -(-experts // devices)
        spec = ClusterSpec(2, experts, devices * int(rng.integers(least, min(least + 3, experts) + 1)), devices, nodes, groups)
        load = loads(spec, case, ties=ties)
        if ties:
            load += 1 if case % 2 else 0
            load[load.sum(axis=1) == 0] += 1
            parts = load.reshape(spec.layers, groups, -1).sum(axis=2)
            load += (parts == 0).any()  # a node without any load is where we differ from the reference on purpose
        wanted = reference(load.tolist(), spec.slots, groups, nodes, devices)
        assert reset(policy, spec).plan(load, None).phy2log.tolist() == wanted


@pytest.mark.parametrize("policy", EVERY, ids=repr)
@settings(max_examples=25, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999), ties=st.booleans())
def test_every_plan_is_valid_and_no_better_than_the_bound(policy, spec, seed, ties):
    load = loads(spec, seed, ties=ties)
    reset(policy, spec)
    plan = policy.plan(load, None)
    for again in (plan, policy.plan(loads(spec, seed + 1, ties=ties), plan)):
        again.check(spec)
        assert (again.count(spec.experts).sum(axis=1) == spec.slots).all()
        top = again.device_load(load, spec).max(axis=1)
        assert (top >= least_top_load(load, spec) * (1 - 1e-9)).all()


@pytest.mark.parametrize("policy", SEPARATING, ids=repr)
@settings(max_examples=40, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999), ties=st.booleans())
def test_replicas_of_an_expert_lie_on_different_devices(policy, spec, seed, ties):
    reset(policy, spec)
    plan = policy.plan(loads(spec, seed, ties=ties), None)
    plan = policy.plan(loads(spec, seed + 1, ties=ties), plan)
    assert plan.held(spec).sum() == spec.layers * spec.slots


@pytest.mark.parametrize("policy", FRESH, ids=repr)
@settings(max_examples=25, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999), power=st.integers(-8, 8))
def test_scaling_the_load_leaves_the_plan_unchanged(policy, spec, seed, power):
    load = loads(spec, seed)
    reset(policy, spec)
    assert np.array_equal(policy.plan(load, None).phy2log, policy.plan(load * 2.0**power, None).phy2log)


@pytest.mark.parametrize("policy", FRESH[:3], ids=repr)
@settings(max_examples=25, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999))
def test_permuting_experts_permutes_the_plan(policy, spec, seed):
    load = np.round(loads(spec, seed), 6) + np.arange(spec.experts) * 1e-3
    order = np.random.default_rng(seed).permutation(spec.experts)
    reset(policy, spec)
    plain, permuted = policy.plan(load, None), policy.plan(load[:, order], None)
    device = [np.sort(each.reshape(spec.layers, spec.devices, -1), axis=2) for each in (plain.phy2log, order[permuted.phy2log])]
    assert np.array_equal(*device)


@settings(max_examples=25, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999))
def test_one_more_slot_on_every_device_never_worsens_the_largest_replica(spec, seed):
    load = loads(spec, seed)
    more = spec.slots + spec.devices
    if more > spec.experts * spec.devices:
        return
    wide = ClusterSpec(spec.layers, spec.experts, more, spec.devices, spec.nodes, spec.groups)
    top = [reset(GreedyEPLB("global"), each).plan(load, None).slot_load(load, each).max(axis=1) for each in (spec, wide)]
    assert (top[1] <= top[0] * (1 + 1e-12)).all()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 999), shape=st.sampled_from([(3, 4, 2), (2, 4, 2), (3, 6, 3), (4, 6, 2), (4, 4, 4)]))
def test_exact_is_what_trying_everything_finds(seed, shape):
    spec = ClusterSpec(1, *shape)
    load = loads(spec, seed, ties=seed % 3 == 0)
    load[load.sum(axis=1) == 0] += 1
    top = reset(ExactILP(), spec).plan(load, None).device_load(load, spec).max()
    assert top == pytest.approx(best_top_load(load[0], spec.slots, spec.devices))


def test_exact_agrees_with_a_general_solver():
    from .milp import best_top_load as solved

    for seed in range(3):
        spec = ClusterSpec(1, 5, 6, 2)
        load = loads(spec, seed)
        top = reset(ExactILP(), spec).plan(load, None).device_load(load, spec).max()
        assert top == pytest.approx(solved(load[0], spec.slots, spec.devices), rel=1e-6)


def test_exact_puts_two_replicas_on_one_device_where_that_is_best():
    spec = ClusterSpec(1, 3, 4, 2)
    plan = reset(ExactILP(), spec).plan(np.array([[10.0, 4.0, 6.0]]), None)
    assert plan.device_load(np.array([[10.0, 4.0, 6.0]]), spec).max() == 10.0  # any other plan has 11 or more


def test_one_hot_load_gets_no_more_replicas_than_devices():
    spec = ClusterSpec(1, 8, 16, 4)
    load = np.array([[1000.0, *[1.0] * 7]])
    assert reset(Zigzag(), spec).plan(load, None).count(8)[0, 0] == 4


@pytest.mark.parametrize("policy", [*FRESH, GreedyEPLB()], ids=repr)
def test_without_any_load_spare_slots_are_spread(policy):
    spec = ClusterSpec(2, 8, 12, 4, 2, 2)
    count = reset(policy, spec).plan(np.zeros((2, 8)), None).count(8)
    assert count.max() == 2


def test_sums_beyond_32_bits_keep_their_ties():
    spec = ClusterSpec(1, 4, 4, 2)
    load = np.array([[2**40 + 1, 2**40, 2**40 + 1, 2**40]], dtype=np.int64)
    assert reset(GreedyEPLB(), spec).plan(load, None).device_load(load, spec)[0].tolist() == [2**41 + 1, 2**41 + 1]


def test_local_search_improves_on_its_start():
    spec = ClusterSpec(4, 32, 40, 8)
    load = loads(spec, 3)
    tops = [reset(LocalSearch(moves), spec).plan(load, None).device_load(load, spec).max(axis=1).sum() for moves in (0, 1, 100)]
    assert tops[0] > tops[1] > tops[2]


@pytest.mark.parametrize("max_moves", [0, 1, 2, 5])
def test_incremental_sends_no_more_than_it_may(max_moves):
    spec = ClusterSpec(3, 16, 24, 4)
    policy = reset(Incremental(max_moves, min_gain=0.0), spec)
    first = policy.plan(loads(spec, 0), None)
    second = policy.plan(loads(spec, 1), first)
    assert np.bincount(second.moves(first, spec)[:, 0], minlength=3).max() <= max_moves


@settings(max_examples=40, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999))
def test_incremental_never_makes_the_hottest_device_hotter(spec, seed):
    policy = reset(Incremental(), spec)
    prev, load = policy.plan(loads(spec, seed), None), loads(spec, seed + 1)
    before, after = (plan.device_load(load, spec).max(axis=1) for plan in (prev, policy.plan(load, prev)))
    assert (after <= before * (1 + 1e-9)).all()


def test_hierarchical_is_refused_where_it_does_not_fit():
    with pytest.raises(InputError, match="use mode='global'"):
        reset(GreedyEPLB("hierarchical"), ClusterSpec(1, 12, 12, 4, 4, 3)).plan(np.ones((1, 12)), None)


@pytest.mark.parametrize("policy", EVERY[2:], ids=repr)
@pytest.mark.parametrize(
    ("load", "says"),
    [
        (np.array([[1.0, -1.0]]), "at least 0"),
        (np.array([[1.0, np.nan]]), "finite"),
        (np.array([[1.0, np.inf]]), "finite"),
        (np.ones((2, 2)), "shape"),
        (np.ones(2), "shape"),
    ],
)
def test_unusable_loads_are_refused(policy, load, says):
    with pytest.raises(ValueError, match=says):
        reset(policy, ClusterSpec(1, 2, 2, 1)).plan(load, None)


def test_drop_in_returns_what_an_engine_expects():
    phy2log, log2phy, count = rebalance_experts(np.array(DOCUMENTED), 16, 4, 2, 8)
    assert phy2log.tolist() == ANSWER
    assert count.sum(axis=1).tolist() == [16, 16] and log2phy.shape == (2, 12, 2)
    for layer in range(2):
        for expert in range(12):
            slots = log2phy[layer, expert, : count[layer, expert]]
            assert (phy2log[layer, slots] == expert).all() and (log2phy[layer, expert, count[layer, expert] :] == -1).all()


def test_drop_in_takes_the_plan_in_place():
    load = np.array(DOCUMENTED)
    first = rebalance_experts(load, 16, 4, 2, 8)[0]
    second = rebalance_experts(load[::-1], 16, 4, 2, 8, policy=Incremental(2), prev=first)[0]
    spec = ClusterSpec(2, 12, 16, 8, 2, 4)
    assert len(Plan(second).moves(Plan(first), spec)) <= 4


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((10, 4, 2, 8), "cannot hold 12 experts"),
        ((18, 4, 2, 8), "do not divide among 8 devices"),
        ((16, 4, 3, 8), "do not divide among 3 nodes"),
        ((16, 5, 1, 8), "do not divide into 5 groups"),
        ((104, 4, 2, 8), "more than every expert on every device"),
        ((0, 4, 2, 8), "at least 1"),
    ],
)
def test_drop_in_refuses_numbers_that_do_not_fit(numbers, says):
    with pytest.raises(ValueError, match=says):
        rebalance_experts(np.array(DOCUMENTED), *numbers)
