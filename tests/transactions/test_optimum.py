from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.transactions import (
    BatchSpec,
    LocalSearch,
    TransactionsStudy,
    batch_of,
    lower_bound,
    makespan,
    optimal_order,
    simple_bound,
)
from cloudchamber.transactions.model import MODELS
from cloudchamber.transactions.optimum import clique_bound, key_bounds, one_machine

from .slots import TEXTS


def best_of_all(batch, model="mv"):
    return min(makespan(batch, order, model) for order in permutations(range(len(batch))))


def test_bounds_of_a_batch_by_hand():
    batch = batch_of(["* w-1 *"] * 3)
    assert simple_bound(batch) == 1 + 3 + 1 == lower_bound(batch)
    assert key_bounds(batch) == [(0, 5)]


def test_a_read_by_a_transaction_that_does_not_write_takes_one_more_slot():
    assert simple_bound(batch_of(["r-1", "r-1", "w-1"])) == 2
    assert simple_bound(batch_of(["r-1 w-1", "* *"])) == 2


def test_read_modify_writes_cannot_interleave():
    """Each holds the key from its read to its write: two slots apiece, where the simple bound sees one."""
    batch = batch_of(["r-1 w-1 * *"] * 4)
    assert lower_bound(batch) == 4 * 2 + 2 == best_of_all(batch)
    assert simple_bound(batch) == 4 + 2


def test_one_machine_takes_the_longest_tail_first():
    assert one_machine([(0, 3, 0), (1, 1, 9)]) == 11
    assert one_machine([]) == 0


def test_of_a_clique_the_cheapest_path_counts():
    batch = batch_of(["w-1 w-2 *", "w-2 w-1 *", "w-1 w-2 *"])
    assert clique_bound(batch) <= best_of_all(batch)
    assert clique_bound(batch) >= 5


@given(TEXTS.filter(lambda texts: len(texts) <= 6), st.sampled_from(MODELS))
def test_no_order_beats_the_bounds(texts, model):
    batch = batch_of(texts)
    best = best_of_all(batch, model)
    assert lower_bound(batch, model) <= best
    if model == "mv":
        assert simple_bound(batch) <= best


@settings(max_examples=25)
@given(TEXTS.filter(lambda texts: len(texts) <= 6), st.sampled_from(["mv", "2pl"]))
def test_the_proven_optimum_is_the_best_of_all_orders(texts, model):
    batch = batch_of(texts)
    order = optimal_order(batch, model)
    assert sorted(order) == list(range(len(batch)))
    assert makespan(batch, order, model) == best_of_all(batch, model)


def test_exact_up_to_a_dozen_only():
    assert optimal_order(batch_of(["w-1"] * 13)) is None
    assert optimal_order(batch_of(["w-1"]), "occ") is None
    assert optimal_order(batch_of([])) == ()


@pytest.mark.slow
def test_local_search_finds_the_optimum_of_nearly_every_batch_of_eight():
    study = TransactionsStudy()
    workload = study.workloads()["tiny"]
    found = 0
    for seed in range(100):
        world = workload.world(seed)
        order = world.ask(LocalSearch(), np.random.default_rng(seed))
        found += world.schedule(order).makespan == workload.bound(seed)[0]
    assert found >= 95


def test_local_search_keeps_its_budget_and_answers_with_none():
    batch = batch_of(["w-1 r-2", "w-2 r-1", "r-1 w-1"] * 4)
    policy = LocalSearch()
    policy.reset(BatchSpec(0), np.random.default_rng(0))
    assert sorted(policy.order(batch)) == list(range(12))
