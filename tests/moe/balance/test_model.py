from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import decode, encode
from cloudchamber.moe.balance import ClusterSpec, Plan, RandomPlan

from .clusters import clusters, loads, reset

SPEC = ClusterSpec(1, 4, 6, 3)


def plan(*experts) -> Plan:
    return Plan(np.array([experts]))


def random_plan(spec, seed):
    return reset(RandomPlan(), spec, seed).plan(loads(spec, 0), None)


def test_device_load_by_hand():
    load = np.array([[12.0, 3.0, 4.0, 5.0]])
    assert plan(0, 1, 0, 2, 0, 3).device_load(load, SPEC).tolist() == [[7.0, 8.0, 9.0]]


@settings(max_examples=50, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999))
def test_both_maps_are_inverse_and_counts_add_up(spec, seed):
    made = random_plan(spec, seed)
    back, count = made.log2phy(spec.experts), made.count(spec.experts)
    assert (count.sum(axis=1) == spec.slots).all() and ((back >= 0).sum(axis=2) == count).all()
    for layer in range(spec.layers):
        slots = [slot for expert in range(spec.experts) for slot in back[layer, expert, : count[layer, expert]]]
        assert sorted(slots) == list(range(spec.slots))
        assert all(made.phy2log[layer, slot] == expert for expert in range(spec.experts) for slot in back[layer, expert] if slot >= 0)


@settings(max_examples=50, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999))
def test_device_loads_add_up_to_the_load(spec, seed):
    load = loads(spec, seed)
    assert random_plan(spec, seed).device_load(load, spec).sum(axis=1) == pytest.approx(load.sum(axis=1))


def test_swapping_slots_of_a_device_moves_nothing():
    assert len(plan(1, 0, 2, 0, 3, 0).moves(plan(0, 1, 0, 2, 0, 3), SPEC)) == 0


def test_swapping_whole_devices_moves_nothing():
    assert len(plan(2, 0, 0, 1, 3, 0).moves(plan(0, 1, 0, 2, 0, 3), SPEC)) == 0


def test_devices_of_other_nodes_are_not_interchangeable():
    spec = ClusterSpec(1, 4, 4, 2, 2)
    assert len(plan(2, 3, 0, 1).moves(plan(0, 1, 2, 3), spec)) == 4
    assert len(plan(2, 3, 0, 1).moves(plan(0, 1, 2, 3), ClusterSpec(1, 4, 4, 2))) == 0


def test_sends_by_hand():
    # what device 0 is to hold lies on device 1: they change names, and one expert is sent
    assert plan(0, 2, 1, 2, 0, 3).moves(plan(0, 1, 0, 2, 0, 3), SPEC).tolist() == [[0, 2, 1, 0]]


def test_receivers_of_an_expert_take_turns_among_its_holders():
    spec = ClusterSpec(1, 5, 8, 4)
    before, after = plan(0, 1, 0, 2, 3, 4, 1, 2), plan(0, 1, 0, 2, 3, 0, 4, 0)
    sends = after.moves(before, spec)
    assert sorted(sends[sends[:, 1] == 0][:, 2].tolist()) == [0, 1]


@settings(max_examples=50, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999))
def test_sends_turn_one_plan_into_the_other(spec, seed):
    before, after = random_plan(spec, seed), random_plan(spec, seed + 1)
    target = after.aligned(before, spec)
    held = before.held(spec)
    for layer, expert, sender, receiver in after.moves(before, spec):
        assert before.held(spec)[layer, sender, expert] and not held[layer, receiver, expert]
        held[layer, receiver, expert] = True
    assert (held | ~target.held(spec)).all()
    content = [sorted(map(tuple, np.sort(each.phy2log.reshape(spec.layers, spec.devices, -1)[0], axis=1))) for each in (after, target)]
    assert content[0] == content[1]
    assert len(before.moves(before, spec)) == 0


@settings(max_examples=50, deadline=None)
@given(spec=clusters(), seed=st.integers(0, 999))
def test_renaming_devices_moves_nothing(spec, seed):
    before = random_plan(spec, seed)
    rng = np.random.default_rng(seed)
    per_node = spec.devices // spec.nodes
    order = np.concatenate([node * per_node + rng.permutation(per_node) for node in range(spec.nodes)])
    table = before.phy2log.reshape(spec.layers, spec.devices, -1)[:, order].reshape(spec.layers, -1)
    assert len(Plan(table).moves(before, spec)) == 0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([[0, 1, 2, 3, 0]], "shape"),
        ([[0, 1, 2, 3, 0, 4]], "slot 5 of layer 0 holds expert 4; experts are 0 to 3"),
        ([[0, 1, 2, 3, 0, -1]], "holds expert -1"),
        ([[0, 1, 2, 0, 0, 1]], "expert 3 of layer 0 has no slot"),
        ([[0.0, 1, 2, 3, 0, 1]], "whole numbers"),
    ],
)
def test_plans_that_are_none_are_refused_by_name(table, says):
    with pytest.raises(InputError, match=says):
        Plan(np.array(table)).check(SPEC)


@pytest.mark.parametrize("kind", [np.uint64, np.uint8, np.int16])
def test_whole_numbers_of_any_kind_are_taken(kind):
    made = Plan(np.array([[0, 1, 2, 3, 0, 1]], dtype=kind))
    made.check(SPEC)
    assert made.phy2log.dtype == np.int64 and not made.phy2log.flags.writeable
    assert made.count(SPEC.experts).tolist() == [[2, 2, 1, 1]]
    with pytest.raises(InputError, match="experts are 0 to 3"):
        Plan(np.array([[0, 1, 2, 3, 0, 2**64 - 1]], dtype=np.uint64)).check(SPEC)


def test_a_plan_survives_the_wire():
    made = plan(0, 1, 0, 2, 0, 3)
    assert np.array_equal(decode(encode(made), Plan).phy2log, made.phy2log)
    assert decode(encode(SPEC), ClusterSpec) == SPEC


@pytest.mark.parametrize("field", ["expert_mb", "bandwidth_gb_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_sizes_must_be_above_zero(field, value):
    with pytest.raises(InputError, match=f"{field} must be a finite number above 0"):
        ClusterSpec(1, 4, 6, 3, **{field: value})
