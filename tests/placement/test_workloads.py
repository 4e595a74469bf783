from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cloudchamber.core import datasets
from cloudchamber.core.errors import InputError
from cloudchamber.placement import ExactPacking, PlacementStudy, read_instances, run
from cloudchamber.placement.data import _convert, prism_dataset
from cloudchamber.placement.workloads import named_workloads

STUDY = PlacementStudy()
GOOD = {"gpus": 2, "gpu_memory_gb": 80, "models": [{"size_gb": 10 + i, "request_rate": 1, "slo": 2} for i in range(4)]}


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([GOOD] * 8))
    return path


@pytest.mark.data
def test_files_are_the_declared_ones(prism_file):
    assert datasets.check(prism_dataset(), prism_file.parent) == []


def test_converter_draws_the_declared_bytes(tmp_path):
    _convert([], tmp_path)
    assert datasets.check(prism_dataset(), tmp_path) == []


@pytest.mark.data
def test_twin_has_the_statistics_of_the_published_set(prism):
    twin = named_workloads()["prism"].twin()
    made = [twin.instance(seed) for seed in range(400)]
    for key, within in (("size_gb", 1.0), ("request_rate", 0.3), ("slo", 0.2)):
        real, drawn = (np.array([getattr(m, key) for each in set_ for m in each.models]) for set_ in (prism, made))
        assert drawn.mean() == pytest.approx(real.mean(), abs=within)
        assert (drawn.min(), drawn.max()) == (real.min(), real.max())
    assert {each.gpus for each in made} == {each.gpus for each in prism} and {len(each.models) / each.gpus for each in made} == {2}


def test_without_data_the_twin_stands_in_and_says_so(monkeypatch):
    def refuse(dataset):
        raise datasets.DatasetUnavailable(f"dataset {dataset.name!r} is not here.")

    monkeypatch.setattr("cloudchamber.placement.study.locate", refuse)
    ready, note = STUDY.ready(STUDY.workloads()["prism"])
    assert ready.is_generated and ready.name == "prism" and "generated twin" in note
    assert ready.instance(77).models


def test_parts_of_a_finite_set_are_disjoint_and_cover_it(mine):
    whole = STUDY.workload(mine)
    parts = [whole.part(lo, hi) for lo, hi in ((0, 0.5), (0.5, 0.75), (0.75, 1))]
    assert [(part.first, part.seeds) for part in parts] == [(0, 4), (4, 2), (6, 2)]
    assert all(part.name == whole.name and part.is_finite for part in parts)
    assert parts[0].part(0.5, 1).first == 2
    assert whole.part(0.5, 0.5) is None


def test_a_generator_has_no_parts_and_is_its_own_twin():
    smoke = STUDY.workloads()["smoke"]
    assert smoke.part(0.5, 0.75) is smoke and smoke.twin() is smoke


def test_a_users_file_has_no_twin(mine):
    assert STUDY.workload(mine).twin() is None


def test_seeds_beyond_a_finite_set_are_refused(mine):
    with pytest.raises(InputError, match="seeds are 0 to 7"):
        STUDY.workload(mine).instance(8)
    with pytest.raises(InputError, match="seeds are 0 to 7"):
        STUDY.workload(mine).instance(-1)


def test_renaming_keeps_the_instance_and_the_score_of_who_does_not_look_at_ids():
    smoke = STUDY.workloads()["smoke"]
    renamed = smoke.renamed(np.random.default_rng(1))
    first, second = smoke.instance(1), renamed.instance(1)
    assert first.models != second.models and sorted(map(repr, first.models)) == sorted(map(repr, second.models))
    assert renamed.instance(1) == second and renamed.name == smoke.name
    scores = [run(ExactPacking(), each, np.random.default_rng(0)).kvpr.max() for each in (first, second)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-8)


def test_smoke_is_the_same_on_any_machine():
    assert named_workloads()["smoke"].instance(0).models[0] == named_workloads()["smoke"].instance(0).models[0]
    assert len({named_workloads()["smoke"].instance(seed) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[]", "list of instances"),
        ('{"gpus": 1}', "list of instances"),
        ("[3]", "instance 0: an object with gpus"),
        (json.dumps([GOOD, {**GOOD, "gpus": 1.5}]), "instance 1: gpus must be a whole number"),
        (json.dumps([{**GOOD, "gpus": 0}]), "at least one GPU"),
        (json.dumps([{**GOOD, "models": 3}]), "must be a list"),
        (json.dumps([{**GOOD, "models": [{"size_gb": 3}]}]), "size_gb, request_rate, slo"),
        (json.dumps([{**GOOD, "models": [{"size_gb": "3", "request_rate": 1, "slo": 1}]}]), "size_gb must be a number"),
        (json.dumps([{**GOOD, "models": [{"size_gb": 90, "request_rate": 1, "slo": 1}]}]), "larger GPUs"),
    ],
)
def test_unusable_files_say_why(content, says, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=says):
        read_instances(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        STUDY.workload(tmp_path / "none.json")


def test_parameters_are_set_by_name():
    smoke = STUDY.workloads()["smoke"]
    changed = STUDY.adjusted(smoke, gpus="4-6", models_per_gpu="1", size_gb=12, gpu_memory_gb="40")
    assert (changed.gpus, changed.models_per_gpu, changed.size_gb, changed.gpu_memory_gb) == ((4, 6), 1, (12, 12), 40.0)
    each = changed.instance(0)
    assert len(each.models) == each.gpus and {model.size_gb for model in each.models} == {12.0}


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"gpu": 3}, "allowed: seeds, gpus"),
        ({"gpus": "9-5"}, "range like 5-9"),
        ({"gpus": "a"}, "range like 5-9"),
        ({"seeds": 0}, "above 0"),
        ({"gpu_memory_gb": "inf"}, "above 0"),
    ],
)
def test_wrong_parameters_are_refused(params, says):
    with pytest.raises(InputError, match=says):
        STUDY.adjusted(STUDY.workloads()["smoke"], **params)


def test_a_set_is_not_redrawn(mine):
    with pytest.raises(InputError, match="reads its instances from a file"):
        STUDY.workload(mine, gpus=3)
    with pytest.raises(InputError, match="at most that"):
        STUDY.workload(mine, seeds=9)
    assert STUDY.workload(mine, seeds=3).seeds == 3


def test_what_cannot_fit_is_not_drawn_forever():
    with pytest.raises(InputError, match="did not fit"):
        replace(STUDY.workloads()["smoke"], models_per_gpu=9).instance(0)
