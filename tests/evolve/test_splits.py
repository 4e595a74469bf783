from __future__ import annotations

import numpy as np
import pytest

from cloudchamber.core.registry import load_study, study_names
from cloudchamber.core.results import ratio
from cloudchamber.evolve.splits import ready_workloads, split

from .toy.study import PricingStudy


def test_seeds_of_a_generator_are_disjoint_and_follow_from_the_runs_seed():
    study = PricingStudy()
    workloads, _ = ready_workloads(study, ["young", "old"])
    first, again, other = (split(study, workloads, seed, (5, 5, 5)) for seed in (1, 1, 2))
    assert first == again and first != other
    seeds = [{(p.name, p.seed) for p in points} for points in (first.training, first.validation, first.held_out)]
    assert len(set().union(*seeds)) == 30


def test_rounds_take_one_trial_of_each_workload_in_turn():
    study = PricingStudy()
    workloads, _ = ready_workloads(study, ["young", "old"])
    assert [point.name for point in split(study, workloads, 1, (3, 1, 2)).training] == ["young", "old"] * 3


def test_optional_workloads_are_left_out_unless_named():
    workloads, _ = ready_workloads(PricingStudy(), [])
    assert {each.name for each in workloads} == {"young", "old"}


@pytest.mark.parametrize("name", study_names())
def test_every_study_can_be_split(name):
    study = load_study(name)
    workloads, _ = ready_workloads(study, [])
    found = split(study, workloads, 1, (2, 2, 2))
    assert found.names and len(found.held_out) == 2 * len({point.group for point in found.held_out})
    for point in (*found.validation, *found.held_out):
        same = [each for each in found.training if each.group == point.group and each.workload == point.workload]
        assert point.seed not in {each.seed for each in same}


@pytest.mark.data
def test_a_long_trace_is_cut_in_time():
    study = load_study("spot")
    workloads, notes = ready_workloads(study, ["aws-v100-2023-tp1.5"] if "aws-v100-2023-tp1.5" in study.workloads() else ["v100-9z-tp2.0"])
    if notes:
        pytest.skip("the traces are not here")
    cut = [workloads[0].part(lo, hi) for lo, hi in ((0, 0.5), (0.5, 0.75), (0.75, 1))]
    assert all(part is not None for part in cut)
    ends = [part.span for part in cut]
    assert ends[0][1] <= ends[1][0] and ends[1][1] <= ends[2][0]
    ticks = [part.whole_market(0).ticks for part in cut]
    assert sum(ticks) <= workloads[0].whole_market(0).ticks + 2


@pytest.mark.parametrize(("name", "policy"), [("placement", "ExactPacking"), ("broadcast", "DreyfusWagner"), ("spot", "OnDemandOnly")])
def test_new_names_leave_the_score_as_it_was(name, policy):
    study = load_study(name)
    smoke, make = study.workloads()["smoke"], study.policies()[policy]
    for number in range(2):
        moved = smoke.renamed(np.random.default_rng(number))
        old, new = (study.trial(make(), each, 0).metrics[study.objective.name] for each in (smoke, moved))
        assert ratio(new, old, study.objective.direction) == pytest.approx(1.0, rel=1e-9)
