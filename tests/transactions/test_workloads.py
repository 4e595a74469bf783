from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cloudchamber.core.errors import DatasetUnavailable, InputError
from cloudchamber.core.messages import encode
from cloudchamber.transactions import Shape, TransactionsStudy
from cloudchamber.transactions.generators import GENERATORS
from cloudchamber.transactions.workloads import adjusted, renumbered, user_workload

STUDY = TransactionsStudy()
NAMED = STUDY.workloads()


@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_generators_repeat_by_seed_and_differ_between_seeds(kind):
    shape = Shape(n=12, ops=6, keys=30, theta=1.0)
    first, again, other = (GENERATORS[kind](shape, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again and first != other
    assert len(first) in (12, 100) and all(first)


def test_ycsb_has_its_write_share_and_its_skew():
    flat = " ".join(GENERATORS["ycsb"](Shape(n=400, ops=4, keys=50, theta=0.0, write_share=0.3), np.random.default_rng(0))).split()
    assert 0.27 < np.mean([each[0] == "w" for each in flat]) < 0.33
    steep = " ".join(GENERATORS["ycsb"](Shape(n=400, ops=4, keys=50, theta=1.5), np.random.default_rng(0))).split()
    assert sum(each[2:] == "0" for each in steep) > 2 * sum(each[2:] == "0" for each in flat)


def test_generated_workloads_are_their_own_part_and_twin():
    for workload in NAMED.values():
        if workload.is_generated:
            assert workload.part(0.2, 0.4) is workload.twin() is workload


def test_a_finite_set_is_cut_by_instance():
    public = NAMED["public"]
    first, last = public.part(0, 0.67), public.part(0.67, 1)
    assert (first.batches, last.batches) == (("w1", "w2"), ("w3",))
    assert (first.seeds, last.seeds, last.name) == (2, 1, "public")
    assert public.part(0.4, 0.45) is None and NAMED["w1"].part(0, 0.5) is None
    with pytest.raises(InputError, match="has 3 instances"):
        public.world(3)


def test_a_twin_keeps_the_name_and_never_ends():
    twin = NAMED["public"].twin()
    assert twin.name == "public" and twin.is_generated and not twin.is_finite
    assert [len(twin.world(seed).batch) for seed in (0, 4, 50)] == [100, 100, 100]


def test_renaming_keeps_the_makespan_of_a_policy_that_looks_at_no_numbers():
    """By content: length, then the kinds and slots of its accesses, all distinct here."""
    workload = replace(NAMED["tpcc"], shape=Shape(n=40))
    other = workload.renamed(np.random.default_rng(1))
    assert other.name == workload.name and other != workload

    def by_degree(world):
        batch = world.batch
        heat = np.bincount(batch.key, minlength=batch.keys)
        weight = [tuple((kind, at, int(heat[key])) for kind, key, at in batch.accesses(t)) for t in range(len(batch))]
        return world.schedule(tuple(sorted(range(len(batch)), key=lambda t: (int(batch.length[t]), weight[t])))).makespan

    same = [by_degree(workload.world(seed)) for seed in range(8)]
    renamed = [by_degree(other.world(seed)) for seed in range(8)]
    assert np.mean(np.abs(np.subtract(same, renamed))) <= 1.0  # equal keys of the sort are told apart by number alone
    assert encode(other.world(0).batch) == encode(other.world(0).batch) != encode(workload.world(0).batch)


def test_renumbering_is_a_bijection():
    batch = NAMED["smallbank"].world(0).batch
    other = renumbered(batch, np.random.default_rng(0))
    assert sorted(other.length) == sorted(batch.length) and other.keys == batch.keys
    assert sorted(np.bincount(other.key)) == sorted(np.bincount(batch.key))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"speed": "3"}, "no parameter 'speed'"),
        ({"budget": "many"}, "budget must be a whole number"),
        ({"budget": "0"}, "from 1 to"),
        ({"theta": "nan"}, "theta must be a number"),
        ({"write_share": "2"}, "from 0 to 1"),
        ({"model": "si"}, "mv, 2pl, occ"),
        ({"keys": "3"}, "cannot be drawn from keys=3"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(params, says):
    with pytest.raises(InputError, match=says):
        adjusted(NAMED["ycsb"], params)


def test_settings_reach_the_world():
    world = adjusted(NAMED["ycsb"], {"n": "5", "ops": "3", "model": "2pl", "budget": "77"}).world(0)
    assert (len(world.batch), set(world.batch.length.tolist()), world.spec.model, world.spec.budget) == (5, {3}, "2pl", 77)
    with pytest.raises(InputError, match="allowed: model, budget, seeds"):
        adjusted(NAMED["w1"], {"n": "5"})


def test_a_users_batch_and_folder(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"t0": "r-1 w-2", "t1": "w-1"}))
    (tmp_path / "b.json").write_text(json.dumps(["w-5 *"]))
    one = user_workload(tmp_path / "a.json", {"budget": "10"})
    assert len(one.world(7).batch) == 2 and one.twin() is None and STUDY.ready(one)[0] is one
    many = user_workload(tmp_path, {})
    assert many.is_finite and many.seeds == 2 and len(many.world(1).batch) == 1
    (tmp_path / "a.json").write_text(json.dumps({"t0": "w-2"}))
    assert len(user_workload(tmp_path / "a.json", {}).world(0).batch) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "as JSON"),
        ("{}", "at least one transaction"),
        ("[1]", "list of such texts"),
        ('["r-1", "q-2"]', "transaction 1, slot 0"),
        ("3", "must hold"),
    ],
)
def test_a_users_batch_that_is_none_is_refused(tmp_path, content, says):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=says):
        user_workload(tmp_path / "bad.json", {})


def test_no_batch_at_all_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match="no batch at"):
            user_workload(path, {})


def test_without_data_the_twin_stands_in_and_says_so(monkeypatch):
    def refuse(dataset):
        raise DatasetUnavailable(f"dataset {dataset.name!r} is not here.")

    monkeypatch.setattr("cloudchamber.transactions.study.locate", refuse)
    ready, note = STUDY.ready(NAMED["w2"])
    assert ready.is_generated and "generated twins" in note and len(ready.world(0).batch) == 100
