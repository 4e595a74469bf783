from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.placement import ExactPacking, Loads, PlacementStudy, least_kvpr, mediant, run
from cloudchamber.placement.optimum import alone

from .worlds import instance, least, small

STUDY = PlacementStudy()


def test_optimum_by_hand():
    each = instance(2, (40, 4, 1), (40, 1, 1), (10, 3, 1))
    best = least_kvpr(each)
    assert best.kvpr == pytest.approx(max(4 / 40, 4 / 30)) and best.is_exact
    assert best.loads.gpu_of[1] == best.loads.gpu_of[2] != best.loads.gpu_of[0]


@given(small)
def test_equals_the_best_of_all_placements(each):
    expected = least(each)
    if math.isinf(expected):
        with pytest.raises(InputError, match="do not fit"):
            least_kvpr(each)
        return
    best = least_kvpr(each)
    assert best.kvpr == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert max(mediant(each), alone(each)) <= best.kvpr * (1 + 1e-9)


@given(small)
def test_no_policy_beats_it(each):
    if math.isinf(least(each)):
        return
    best = least_kvpr(each).kvpr
    for name, make in STUDY.policies().items():
        try:
            found = run(make(), each, np.random.default_rng(0))
        except CandidateError:
            continue  # a greedy may run out of room where the optimum does not
        assert isinstance(found, Loads), name
        assert found.kvpr.max() >= best * (1 - 1e-9), name


def test_more_models_than_the_table_holds_have_a_bound_that_is_not_exact():
    large = STUDY.workloads()["large"]
    bound = STUDY.bound(large, 0)
    assert not bound.is_exact and bound.outcome is None and bound.value > 0


def test_models_without_requests_press_nobody():
    assert least_kvpr(instance(2, (10, 0, 1), (10, 0, 1))).kvpr == 0.0


def test_exact_policy_hands_large_instances_to_local_search():
    each = instance(3, *[(10, 1 + i, 6) for i in range(9)])
    few, many = (run(ExactPacking(max_models=most), each, np.random.default_rng(0)) for most in (3, 18))
    assert many.kvpr.max() <= few.kvpr.max()
