from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber import study
from cloudchamber.core.errors import InputError
from cloudchamber.core.registry import load_study
from cloudchamber.moe.balance import EWMA, ClusterSpec, CostBenefit, GreedyEPLB, LocalSearch, Plan, Popularity, read_history
from cloudchamber.moe.balance.histories import SCENARIOS, calibrated, windows_of
from cloudchamber.moe.balance.optimum import least_top_load
from cloudchamber.moe.balance.workloads import named_workloads, renamed

STUDY = load_study("moe.balance")


def drawn(seed=0, windows=12, layers=3, experts=64, groups=8, **rest):
    return Popularity(**rest).history(np.random.default_rng(seed), windows=windows, layers=layers, experts=experts, groups=groups)


def write(path, history):
    path.write_text(json.dumps({"load_history": [{"logical_expert_load": step.tolist()} for step in history]}))
    return path


@pytest.fixture
def trace(tmp_path):
    return write(tmp_path / "mine.json", drawn(windows=20, experts=16, groups=4, tokens=10_000.0))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_generators_are_deterministic_and_keep_the_tokens(scenario):
    first, second = (drawn(5, scenario=scenario) for _ in range(2))
    assert np.array_equal(first, second) and first.dtype == np.int64 and (first >= 0).all()
    assert first.sum(axis=2).mean() == pytest.approx(3_276_800, rel=0.01)


def test_scenarios_are_what_they_say():
    assert (drawn(scenario="sparse").sum(axis=0) == 0).mean() > 0.15
    hot = drawn(scenario="onehot", windows=8, period=4)
    assert (hot.max(axis=2) > 0.85 * hot.sum(axis=2)).all()
    assert (hot[3].argmax(axis=1) == hot[0].argmax(axis=1)).all() and (hot[4].argmax(axis=1) != hot[3].argmax(axis=1)).any()
    regime = np.log(drawn(scenario="regime", windows=8, period=4) + 1)
    jumps = np.abs(np.diff(regime, axis=0)).mean(axis=(1, 2))
    assert jumps[3] > 2 * np.delete(jumps, 3).max()


def test_a_history_survives_its_file(trace):
    assert np.array_equal(read_history(trace), drawn(windows=20, experts=16, groups=4, tokens=10_000.0))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not a load history"),
        ("[1, 2]", "is not a load history"),
        ('{"load_history": [{"loads": [[1]]}]}', "logical_expert_load"),
        ('{"load_history": []}', "holds no loads"),
        ('{"load_history": [{"logical_expert_load": [[1, 2], [1]]}]}', "is not a load history"),
        ('{"load_history": [{"logical_expert_load": [[1, "a"]]}]}', "is not a load history"),
        ('{"load_history": [{"logical_expert_load": [[1, -2]]}]}', "at least 0"),
        ('{"load_history": [{"logical_expert_load": [[1, 1e300]]}]}', "finite"),
    ],
)
def test_files_that_are_no_history_are_refused(tmp_path, content, says):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=says):
        STUDY.workload(tmp_path / "bad.json")


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(InputError, match="cannot read the load history"):
        STUDY.workload(tmp_path / "none.json")


def test_a_users_history_is_studied(trace):
    workload = STUDY.workload(trace, devices="4", slots="20", windows="6", predictor="ewma:0.7", trigger="benefit:3")
    assert workload.predictor == EWMA(0.7) and workload.trigger == CostBenefit(3) and not workload.is_generated
    rows = study("moe.balance", ["GreedyEPLB", "Static"], [workload], seeds=2).summary()
    assert rows[0].mean > rows[1].mean and not rows[0].void


def test_parts_cut_a_history_in_time(trace):
    workload = STUDY.workload(trace, windows=4)
    first, second = workload.part(0, 0.5), workload.part(0.5, 1)
    whole = read_history(trace)
    assert first.name == second.name == workload.name
    for part, windows in ((first, whole[:10]), (second, whole[10:])):
        for seed in range(part.seeds):
            seen = part.world(seed).simulator.history
            assert any(np.array_equal(seen, windows[i : i + 5]) for i in range(6))
    assert np.array_equal(second.part(0, 0.5).world(0).simulator.history[-1], whole[14])
    assert workload.part(0.0, 0.05) is None
    smoke = named_workloads()["smoke"]
    assert smoke.part(0, 0.5) is smoke and smoke.twin() is smoke


def test_the_twin_has_the_statistics_of_the_history(trace):
    twin = STUDY.workload(trace).twin()
    assert twin.is_generated and twin.trace is None and twin.name == "mine"
    truth = Popularity(alpha=1.2, group_effect=0.0, rho=0.8, drift=0.4, tokens=5e6)
    seen = calibrated(truth.history(np.random.default_rng(3), windows=60, layers=8, experts=64, groups=1))
    assert seen.alpha == pytest.approx(1.2, abs=0.1) and seen.drift == pytest.approx(0.4, abs=0.05)
    assert seen.rho == pytest.approx(0.8, abs=0.08) and seen.tokens == pytest.approx(5e6, rel=0.01)
    assert twin.world(0).simulator.history.shape == STUDY.workload(trace).world(0).simulator.history.shape


@pytest.mark.parametrize("policy", [GreedyEPLB("global"), LocalSearch()], ids=repr)
def test_renamed_trials_score_the_same(policy):
    workload = named_workloads()["drift-64e"]
    other = workload.renamed(np.random.default_rng(1))
    assert other.name == workload.name and not np.array_equal(other.world(0).simulator.history, workload.world(0).simulator.history)
    scores = [STUDY.trial(policy, each, 0).metrics["balancedness"] for each in (workload, other)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)


def test_renaming_keeps_groups_together():
    history = np.arange(24).reshape(1, 2, 12)
    other = renamed(history, 3, np.random.default_rng(0))
    groups = {frozenset(range(start, start + 4)) for start in range(0, 24, 4)}
    assert {frozenset(other[0, layer, g : g + 4].tolist()) for layer in range(2) for g in (0, 4, 8)} == groups


def test_windows_are_sums_of_steps():
    assert windows_of(np.arange(14).reshape(7, 1, 2), 3)[:, 0].tolist() == [[6, 9], [24, 27]]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"speed": 1}, "no parameter 'speed'"),
        ({"windows": 0}, "windows must be a finite number of at least 1"),
        ({"alpha": "big"}, "alpha must be a number, got 'big'"),
        ({"devices": "2.5"}, "devices must be a whole number"),
        ({"rho": 2}, "rho must be"),
        ({"predictor": "lasst"}, "did you mean last"),
        ({"predictor": "ewma:7"}, "at most 1"),
        ({"predictor": "last:1"}, "takes no number"),
        ({"trigger": "every:x"}, "takes a number above 0"),
        ({"scenario": "rush"}, "no scenario named"),
        ({"slots": 63}, "cannot hold"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(InputError, match=says):
        STUDY.adjusted(named_workloads()["drift-64e"], **settings)


def test_settings_change_the_workload():
    changed = STUDY.adjusted(named_workloads()["drift-64e"], devices="16", alpha="0.5", windows="3", bandwidth_gb_s="2.5")
    assert (changed.cluster.devices, changed.popularity.alpha, changed.windows, changed.cluster.bandwidth_gb_s) == (16, 0.5, 3, 2.5)


def test_the_optimum_attains_the_exact_bound():
    bound = STUDY.bound(named_workloads()["small-16e"], 0)
    assert bound.is_exact and bound.outcome.violations == ()
    assert bound.outcome.metrics["balancedness"] == pytest.approx(bound.value)
    assert not STUDY.bound(named_workloads()["drift-64e"], 0).is_exact


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999))
def test_the_bound_is_below_every_filling(seed):
    """Plans drawn at random, replicas anywhere: none beats the bound of its layer."""
    rng = np.random.default_rng(seed)
    spec = ClusterSpec(1, 5, 9, 3)
    load = np.exp(rng.normal(0, 2, (1, 5)))
    bound = least_top_load(load, spec)[0]
    for _ in range(20):
        table = rng.permutation(np.concatenate([np.arange(5), rng.integers(5, size=4)]))
        assert Plan(table[None]).device_load(load, spec).max() >= bound * (1 - 1e-12)


def test_the_smoke_workload_has_an_exact_optimum_too():
    workload = replace(named_workloads()["smoke"], seeds=1)
    assert STUDY.bound(workload, 0).is_exact


def test_figures_show_every_policy():
    results = study("moe.balance", ["GreedyEPLB", "Static"], ["smoke"])
    made = STUDY.figures(results)
    assert len(made) == 2 and all("Static" in each.svg and "optimum" in made[0].svg for each in made)
