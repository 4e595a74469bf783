from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import decode, encode
from cloudchamber.transactions import Batch, Timeline, batch_of, least_gaps, makespan, starts_of
from cloudchamber.transactions.model import APART, MODELS
from cloudchamber.transactions.workloads import renumbered

from .slots import TEXTS, makespan_by_slots, starts_by_slots


def test_writers_of_one_slot_queue_and_readers_share():
    batch = batch_of(["w-1", "r-1", "r-1", "w-1"])
    assert starts_of(batch, [0, 1, 2, 3]).tolist() == [0, 1, 1, 2]


def test_a_later_transaction_may_start_and_end_earlier():
    batch = batch_of(["* * w-1", "r-1 * * *"])
    assert starts_of(batch, [1, 0]).tolist() == [0, 0]
    assert starts_of(batch, [0, 1]).tolist() == [0, 3]


def test_a_transaction_does_not_wait_for_itself():
    assert makespan(batch_of(["r-1 w-1 r-1"]), [0]) == 3


def test_locks_are_held_to_the_end():
    batch = batch_of(["w-1 * *", "r-1"])
    assert [makespan(batch, [0, 1], model) for model in MODELS] == [3, 4, 4]


def test_optimistic_runs_restart_at_their_own_end():
    batch = batch_of(["w-1 * * *", "r-1 * *"])
    assert starts_of(batch, [0, 1], "occ").tolist() == [0, 6]


def test_no_transactions_take_no_time():
    empty = batch_of([])
    assert makespan(empty, []) == 0 and len(empty) == 0 and empty.keys == 0


def test_order_of_accesses_and_idle_slots_are_kept():
    batch = batch_of(["* r-70 w-70", "w-5"])
    assert batch.accesses(0) == [("r", 0, 1), ("w", 0, 2)]
    assert batch.length.tolist() == [3, 1] and batch.keys == 2


def test_a_batch_survives_the_wire():
    batch = batch_of(["r-1 w-2", "*"])
    assert encode(decode(encode(batch), Batch)) == encode(batch)


@pytest.mark.parametrize("text", ["", "r-", "r--1", "x-1", "r-1.5", "r1", "w-a", "r-1,w-2", None, "r-٣"])
def test_malformed_transactions_are_refused_with_their_place(text):
    with pytest.raises(InputError, match="transaction 1"):
        batch_of(["r-1", text])


def test_unknown_model_is_refused():
    with pytest.raises(InputError, match="mv, 2pl, occ"):
        makespan(batch_of(["r-1"]), [0], "si")


@given(TEXTS, st.randoms(use_true_random=False), st.sampled_from(MODELS))
def test_equals_the_slot_by_slot_world(texts, random, model):
    order = random.sample(range(len(texts)), len(texts))
    batch = batch_of(texts)
    assert starts_of(batch, order, model).tolist() == starts_by_slots(texts, order, model)
    assert makespan(batch, order, model) == makespan_by_slots(texts, order, model)


@given(TEXTS, st.randoms(use_true_random=False), st.sampled_from(MODELS))
def test_appending_never_lowers_the_makespan_and_the_timeline_agrees(texts, random, model):
    order = random.sample(range(len(texts)), len(texts))
    batch, line, before = batch_of(texts), Timeline(batch_of(texts), model), 0
    for i, t in enumerate(order):
        assert line.starts([t])[0] == line.place(t)
        assert line.makespan >= before
        before = line.makespan
        part = [texts[u] for u in order[: i + 1]]
        assert line.makespan == makespan(batch_of(part), range(i + 1), model)
    assert before == makespan(batch, order, model)


@given(TEXTS, st.integers(0, 1000), st.sampled_from(MODELS))
def test_other_numbers_for_keys_and_transactions_change_nothing(texts, seed, model):
    batch = batch_of(texts)
    rng = np.random.default_rng(seed)
    other = renumbered(batch, np.random.default_rng(seed))
    number = rng.permutation(len(batch))  # the same draw: place i of the new batch holds number[i] of the old
    order = np.random.default_rng(seed + 1).permutation(len(batch))
    assert starts_of(other, order, model).tolist() == starts_of(batch, number[order], model)[number].tolist()


@given(TEXTS, st.randoms(use_true_random=False))
def test_neighbours_that_do_not_conflict_can_change_places(texts, random):
    batch = batch_of(texts)
    order = random.sample(range(len(texts)), len(texts))
    gaps = least_gaps(batch)
    for i in range(len(order) - 1):
        if gaps[order[i], order[i + 1]] == APART:
            swapped = [*order[:i], order[i + 1], order[i], *order[i + 2 :]]
            assert makespan(batch, swapped) == makespan(batch, order)


@given(TEXTS, st.sampled_from(["mv", "2pl"]), st.randoms(use_true_random=False))
def test_least_gaps_are_what_the_model_waits_for(texts, model, random):
    batch, gaps = batch_of(texts), least_gaps(batch_of(texts), model)
    order = random.sample(range(len(texts)), len(texts))
    starts = starts_of(batch, order, model)
    for i, t in enumerate(order):
        waits = [starts[u] + gaps[u, t] for u in order[:i] if gaps[u, t] != APART]
        assert starts[t] == max([0, *waits])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_without_conflicts_the_longest_decides(lengths):
    texts = [" ".join([f"w-{t}"] + ["*"] * (length - 1)) for t, length in enumerate(lengths)]
    for model in MODELS:
        assert makespan(batch_of(texts), range(len(texts)), model) == max(lengths)
