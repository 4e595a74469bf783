from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.transactions.online import MVStore, unserialisable
from cloudchamber.transactions.online.store import PROTOCOLS, Committed


def test_a_read_sees_the_past_of_its_own_stamp():
    store = MVStore("mvtso")
    old, young = store.begin(1, 1), store.begin(2, 2)
    assert store.write(young, 7, 70) == "ok" and store.commit(young) == "ok"
    assert store.read(old, 7) == "ok" and old.seen == {7: 0}
    assert store.value(7) == 70


def test_a_read_waits_for_an_uncommitted_write_below_it():
    store = MVStore("mvtso")
    old, young = store.begin(1, 1), store.begin(2, 2)
    store.write(old, 7, 1)
    assert store.read(young, 7) == "wait"
    store.abort(old)
    assert store.read(young, 7) == "ok" and young.seen == {7: 0}


def test_a_write_that_was_read_past_aborts():
    store = MVStore("mvtso")
    old, young = store.begin(1, 1), store.begin(2, 2)
    store.read(young, 7)
    assert store.write(old, 7, 1) == "abort"


def test_a_scheduled_read_waits_for_the_write_that_is_expected():
    store = MVStore("mvschedo")
    old, young = store.begin(1, 1, {7}), store.begin(2, 2)
    assert store.read(young, 7) == "wait"
    assert store.write(old, 7, 1) == "ok" and store.commit(old) == "ok"
    assert store.read(young, 7) == "ok" and young.seen == {7: 1}


def test_a_wrong_expectation_is_not_waited_for_for_ever():
    store = MVStore("mvschedo")
    store.begin(1, 1, {7})
    young = store.begin(2, 2)
    assert store.read(young, 7) == "wait" and store.read(young, 7, patient=False) == "ok"


def test_of_two_that_lock_the_older_waits_and_the_younger_dies():
    store = MVStore("2pl")
    old, young = store.begin(1, 1), store.begin(2, 2)
    assert store.write(young, 7, 1) == "ok" and store.write(old, 7, 1) == "wait"
    store.abort(young)
    assert store.read(store.begin(3, 3), 7) == "abort"  # the older one stands before it
    assert store.write(old, 7, 1) == "ok"


def test_optimists_find_out_at_commit():
    store = MVStore("occ")
    a, b = store.begin(1, 1), store.begin(2, 2)
    assert store.read(a, 7) == store.write(b, 7, 1) == store.commit(b) == "ok"
    assert store.commit(a) == "abort"


def test_committed_writes_are_on_the_disk(tmp_path):
    store = MVStore("mvtso", tmp_path / "log")
    txn = store.begin(4, 1)
    store.write(txn, 7, 70)
    store.commit(txn)
    assert (tmp_path / "log").read_text() == "1 4 {7: 70}\n"
    store.close()


def test_the_checker_finds_a_stale_read():
    good = [Committed(1, 1, {}, {7: 1}), Committed(2, 2, {7: 1}, {})]
    assert unserialisable(good) == []
    assert "read version 0 of key 7" in unserialisable([good[0], Committed(2, 2, {7: 0}, {})])[0]


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.sampled_from(PROTOCOLS))
def test_every_history_is_serialisable_whatever_the_interleaving(seed, protocol):
    rng = np.random.default_rng(seed)
    store, stamp, live = MVStore(protocol), 0, []
    for _ in range(150):
        if len(live) < 4:
            stamp += 1
            plan = [(int(rng.integers(4)), bool(rng.random() < 0.5)) for _ in range(3)]
            live.append((store.begin(stamp, stamp, [key for key, writes in plan if writes and rng.random() < 0.7]), plan))
        i = int(rng.integers(len(live)))
        txn, plan = live[i]
        if not plan:
            answer = store.commit(txn)
        else:
            key, writes = plan[0]
            answer = store.write(txn, key, stamp) if writes else store.read(txn, key, patient=rng.random() < 0.8)
            if answer == "ok":
                plan.pop(0)
                continue
        if answer == "abort" or (answer == "wait" and rng.random() < 0.1):
            store.abort(txn)
            live.pop(i)
        elif answer == "ok":
            live.pop(i)
    assert len(store.history) > 5 and unserialisable(store.history) == []
