from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.core.outcome import Bound, Metric, Outcome, judged, ratio

COST = (Metric("cost_usd", "USD"), Metric("speed", "1/s", "max", high=10))


def test_ratio_is_one_at_the_optimum_in_both_directions():
    assert ratio(4.0, 2.0, "min") == 2.0
    assert ratio(4.0, 8.0, "max") == 2.0
    assert ratio(4.0, 0.0, "min") is None and ratio(4.0, None, "min") is None and ratio(None, 1.0, "min") is None


def test_better_than_the_bound_is_void():
    outcome = judged(Outcome({"cost_usd": 0.9, "speed": 1}), COST, Bound(1.0, True))
    assert outcome.is_void and "better than the bound" in outcome.violations[0]


@given(st.floats(1e-3, 1e6))
def test_equal_to_the_bound_is_valid(value):
    assert not judged(Outcome({"cost_usd": value, "speed": 1}), COST, Bound(value, True)).is_void


@pytest.mark.parametrize("metrics", [{"cost_usd": 1.0}, {"cost_usd": float("nan"), "speed": 1}, {"cost_usd": 1.0, "speed": 11.0}])
def test_missing_nan_and_out_of_range_metrics_are_void(metrics):
    assert judged(Outcome(metrics), COST, None).is_void


def test_metric_without_unit_is_refused():
    with pytest.raises(InputError, match="needs a unit"):
        Metric("x", "")
