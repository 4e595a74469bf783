from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.spot import NelsonAalen, Oracle, Simulator, Ticks
from cloudchamber.spot.policies.lifetime import expected_life

from .worlds import market

SPEC = Simulator(market(["1" * 20, "1" * 20]), Ticks(4, 20, 1)).spec
run_lists = st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=30)


def test_single_event_by_hand():
    """One run of 2 h that ended, prior of 3 h: S drops by exp(-1/2) at 2 h, then an exponential tail of (2 + 3) / 2 h."""
    life = expected_life(np.array([2.0]), np.array([True]), 0.0, 3.0, 1.0)
    assert life == pytest.approx(2.0 + np.exp(-0.5) * 2.5)


def test_without_any_run_the_prior_is_the_mean():
    assert expected_life(np.array([]), np.array([], dtype=bool), 0.0, 7200.0, 1.0) == 7200.0


@settings(max_examples=30)
@given(run_lists)
def test_cumulative_hazard_is_lifelines(sample):
    """Integrated survival up to the last knot, against lifelines' Nelson-Aalen without tie smoothing."""
    from lifelines import NelsonAalenFitter

    lengths, events = (np.array(each) for each in zip(*sorted(sample), strict=True))
    prior = 25.0
    fitter = NelsonAalenFitter(nelson_aalen_smoothing=False)
    fitter.fit(np.append(lengths, prior), np.append(events, False))
    hazard = fitter.cumulative_hazard_.iloc[:, 0]
    last = float(lengths.max())
    grid = np.concatenate([[0.0], np.unique(lengths).astype(float)])
    survival = np.exp(-np.array([hazard[hazard.index <= at].iloc[-1] for at in grid]))
    integral = float((survival[:-1] * np.diff(grid)).sum())
    tail = survival[-1] * (lengths.sum() + prior) / (events.sum() + 1)
    mine = expected_life(lengths.astype(float), events, 0.0, prior, 1.0)
    assert mine == pytest.approx(integral + tail, rel=1e-9)
    assert last > 0


@given(run_lists, st.floats(1.0, 4.0))
def test_higher_hazard_never_lives_longer(sample, gamma):
    lengths, events = (np.array(each) for each in zip(*sorted(sample), strict=True))
    base = expected_life(lengths.astype(float), events, 0.0, 25.0, 1.0)
    assert expected_life(lengths.astype(float), events, 0.0, 25.0, gamma) <= base + 1e-9


def test_held_zone_that_keeps_dying_is_expected_to_die_sooner():
    life = NelsonAalen()
    life.reset(SPEC)
    for k in range(6):
        life.seen(0, True, k * 1200.0)
        life.seen(0, False, k * 1200.0 + 600)
    expected = life.expected_s(7200.0, -1)
    assert expected[0] < 1800 < expected[1]


def test_leaving_censors_and_many_runs_fit():
    life = NelsonAalen()
    life.reset(SPEC)
    for k in range(300):
        life.seen(0, True, k * 100.0)
        life.seen(0, True, k * 100.0 + 50)
        life.left(0, k * 100.0 + 60)
    assert life.expected_s(30_000.0, -1)[0] > 7200  # never seen to die


def test_oracle_needs_a_future():
    with pytest.raises(InputError, match="lifetime=NelsonAalen"):
        Oracle().reset(SPEC)
