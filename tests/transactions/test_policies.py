from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.transactions import (
    FIFO,
    SMF,
    BatchSpec,
    BestOfRandom,
    Clustered,
    FewestWritesFirst,
    IteratedGreedy,
    LocalSearch,
    ShortestFirst,
    SMFAll,
    TransactionsStudy,
    batch_of,
    makespan,
)
from cloudchamber.transactions.model import MODELS, new_state, rules_of
from cloudchamber.transactions.policies.iterated_greedy import best_place
from cloudchamber.transactions.policies.local_search import STEP, change, replay

from .slots import TEXTS

MAKERS = TransactionsStudy().policies()


def order_of(policy, batch, budget=2000, model="mv", seed=0):
    policy.reset(BatchSpec(budget, model), np.random.default_rng(seed))
    return policy.order(batch)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("texts", [[], ["w-1"], ["w-1", "r-1"], ["r-1 w-2", "r-2 w-1", "* *"] * 3])
@pytest.mark.parametrize("budget", [1, 500])
def test_every_policy_answers_with_a_permutation(name, texts, budget):
    for model in MODELS:
        order = order_of(MAKERS[name](), batch_of(texts), budget, model)
        assert type(order) is tuple and all(type(each) is int for each in order)
        assert sorted(order) == list(range(len(texts)))


def test_the_sorts_sort():
    batch = batch_of(["w-1 w-2 *", "r-1", "w-1 r-2"])
    assert order_of(FIFO(), batch) == (0, 1, 2)
    assert order_of(ShortestFirst(), batch) == (1, 2, 0)
    assert order_of(FewestWritesFirst(), batch) == (1, 2, 0)


def test_clusters_take_turns_readers_first():
    batch = batch_of(["w-1", "w-1", "r-1", "w-2", "w-2"])
    assert order_of(Clustered(), batch) == (2, 3, 0, 4, 1)


def test_greedy_appends_what_delays_least():
    batch = batch_of(["w-1 * * *", "w-1 * * *", "* * * w-2"])
    order = order_of(SMFAll(), batch)
    assert order.index(2) <= 1  # beside the first, not behind both


def test_greedy_with_all_candidates_is_the_full_greedy():
    batch = batch_of([f"r-{i % 3} w-{i % 4} w-{i % 5}" for i in range(15)])
    assert order_of(SMF(k=99), batch)[0] in range(15)
    assert makespan(batch, order_of(SMF(k=99), batch, seed=3)) <= 2 * makespan(batch, order_of(SMFAll(), batch, seed=3))


def test_searches_are_no_worse_than_where_they_start():
    batch = batch_of([f"r-{i % 3} w-{i % 4} w-{i % 5}" for i in range(15)])
    least = min(makespan(batch, order_of(each, batch)) for each in (FIFO(), Clustered()))
    assert makespan(batch, order_of(LocalSearch(), batch, 20_000)) <= least
    assert makespan(batch, order_of(IteratedGreedy(), batch, 20_000)) <= makespan(batch, order_of(SMFAll(), batch))


def test_best_of_random_keeps_to_the_budget():
    batch = batch_of(["w-1 *"] * 10)
    one = order_of(BestOfRandom(), batch, budget=1, seed=5)
    assert one == tuple(np.random.default_rng(5).permutation(10).tolist())


@settings(max_examples=30)
@given(TEXTS, st.integers(0, 10**6), st.sampled_from(MODELS))
def test_incremental_replay_equals_full_evaluation(texts, seed, model):
    texts = texts * 3
    batch, rng = batch_of(texts), np.random.default_rng(seed)
    rules, state, order = rules_of(batch, model), new_state(batch), rng.permutation(len(texts))
    places = -(-len(texts) // STEP)
    saved = np.zeros((places, batch.keys), np.int64), np.zeros((places, batch.keys), np.int64), np.zeros(places, np.int64)
    assert replay(order, 0, np.inf, rules, state, saved, True)[0] == makespan(batch, order, model)
    for _ in range(10):
        trial = order.copy()
        first = change(order, trial, rng)
        assert sorted(trial) == list(range(len(texts))) and (trial[:first] == order[:first]).all()
        assert replay(trial, first, np.inf, rules, state, saved, False)[0] == makespan(batch, trial, model)
        if rng.random() < 0.5:
            order = trial
            replay(order, first, np.inf, rules, state, saved, True)


@settings(max_examples=30)
@given(TEXTS.filter(lambda texts: len(texts) > 1), st.sampled_from(MODELS))
def test_best_place_is_the_best_of_all_places(texts, model):
    batch = batch_of(texts)
    others = np.arange(1, len(texts))
    at = best_place(others, 0, rules_of(batch, model), new_state(batch), new_state(batch))
    ends = [makespan(batch, np.insert(others, place, 0), model) for place in range(len(texts))]
    assert ends[at] == min(ends)
