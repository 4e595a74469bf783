from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.core.messages import encode
from cloudchamber.spot import ZoneStatistics, generate
from cloudchamber.spot.data import MARKETS
from cloudchamber.spot.twin import Twin, calibrate, runs, twins


def test_every_public_market_has_a_twin():
    assert set(twins()) == set(MARKETS)


@pytest.mark.parametrize("name", sorted(MARKETS))
@pytest.mark.data
def test_twin_is_calibrated_to_the_real_market(name, spot_data):
    real = MARKETS[name](spot_data)
    assert twins()[name] == Twin.of(real)
    made = [twins()[name].market(np.random.default_rng(seed)) for seed in range(20)]
    share = np.mean([each.available.mean(axis=0) for each in made], axis=0)
    assert np.abs(share - real.available.mean(axis=0)).max() < 0.12
    assert made[0].spot_usd_h.mean(axis=0) == pytest.approx(real.spot_usd_h.mean(axis=0), rel=0.1)


def test_same_seed_same_market():
    first, second = (twins()["gcp-h100"].market(np.random.default_rng(5)) for _ in range(2))
    assert encode([first.available, first.spot_usd_h]) == encode([second.available, second.spot_usd_h])


@given(st.integers(0, 2**31), st.floats(0.3, 1.5), st.floats(0.0, 0.7), st.floats(0.0, 0.9))
def test_generated_markets_are_valid(seed, alpha, price_step, diurnal):
    zone = ZoneStatistics("a-1", "a", 2.0, 8.0, alpha, 600, 360_000, 3000, 1.0, 0.7, price_step)
    made = generate(
        [zone, zone.__class__(**{**vars(zone), "name": "b-1", "region": "b"})],
        ticks=500,
        tick_s=600,
        rng=np.random.default_rng(seed),
        egress_usd_gb={None: 0.1},
        diurnal=diurnal,
    )
    assert made.available.shape == (500, 2) and (made.spot_usd_h > 0).all()
    assert made.spot_usd_h.max() <= 2.0 * (1 + price_step) + 1e-9


def test_calibration_recovers_the_share_of_a_generated_market():
    zone = ZoneStatistics("a-1", "a", 2.0, 8.0, 0.75, 600, 360_000, 3600, 1.0, 0.8)
    made = generate([zone], ticks=20_000, tick_s=600, rng=np.random.default_rng(0), egress_usd_gb={None: 0})
    again = calibrate(made)[0]
    assert again.up_share == pytest.approx(made.available.mean(), abs=1e-3)
    assert again.min_s == 600 and again.down_mean_s == pytest.approx(3600, rel=0.3)


def test_runs_by_hand():
    lengths, states = runs(np.array([True, True, False, True]))
    assert lengths.tolist() == [2, 1, 1] and states.tolist() == [True, False, True]
