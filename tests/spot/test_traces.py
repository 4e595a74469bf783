from __future__ import annotations

import json

import numpy as np
import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.spot import SpotStudy
from cloudchamber.spot.traces import read_user_trace, region_of


def write(folder, name, data, prices=None, gap=600, **meta):
    content = {"metadata": {"gap_seconds": gap, "on_demand_usd_h": 4.0, **meta}, "data": data}
    if prices is not None:
        content["prices"] = prices
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def trace(tmp_path):
    write(tmp_path, "us-east-1a", [1, 1, 0] * 300, [1.0] * 900)
    write(tmp_path, "us-west-2b", [0, 1, 1] * 300, [2.0] * 900)
    return tmp_path


def test_reads_zones_regions_and_prices(trace):
    market = read_user_trace(trace, polarity="available")
    assert [zone.region for zone in market.zones] == ["us-east-1", "us-west-2"]
    assert market.available[:3].tolist() == [[True, False], [True, True], [False, True]]
    assert market.egress_usd_gb.tolist() == [[0, 0.02], [0.02, 0]]


def test_preempted_polarity_flips(trace):
    assert (read_user_trace(trace, polarity="preempted").available == ~read_user_trace(trace, polarity="available").available).all()


def test_counts_become_gangs(tmp_path):
    write(tmp_path, "z-1a", [16, 15, 0], [1.0] * 3)
    assert read_user_trace(tmp_path, polarity="available", gang=16).available[:, 0].tolist() == [True, False, False]


def test_reads_csv(tmp_path):
    file = tmp_path / "mine.csv"
    rows = [f"us-east-1{z},{t * 300},{int(t != 2)},{1 + t}" for z in "ab" for t in range(4)]
    file.write_text("zone,time_s,available,spot_usd_h\n" + "\n".join(rows) + "\n")
    market = read_user_trace(file, polarity="available", on_demand_usd_h=5.0)
    assert market.tick_s == 300 and market.available[:, 1].tolist() == [True, True, False, True]
    assert market.spot_usd_h[:, 0].tolist() == [1, 2, 3, 4]


def test_undeclared_polarity_is_refused(trace):
    with pytest.raises(InputError, match="--set polarity=available or --set polarity=preempted"):
        read_user_trace(trace, polarity=None)
    with pytest.raises(InputError, match="got 'up'"):
        read_user_trace(trace, polarity="up")


def test_nan_price_is_refused_with_its_place(tmp_path):
    write(tmp_path, "us-east-1a", [1, 1, 1], [1.0, float("nan"), 1.0])
    with pytest.raises(InputError, match="us-east-1a: price nan at sample 1 .*fill it"):
        read_user_trace(tmp_path, polarity="available")


def test_negative_price_is_refused(tmp_path):
    write(tmp_path, "us-east-1a", [1, 1], [1.0, -2.0])
    with pytest.raises(InputError, match=r"price -2.0 at sample 1"):
        read_user_trace(tmp_path, polarity="available")


def test_unequal_lengths_are_refused_naming_both(trace):
    write(trace, "us-east-2a", [1] * 700, [1.0] * 700)
    with pytest.raises(InputError, match="us-east-2a has 700 samples, us-east-1a has 900"):
        read_user_trace(trace, polarity="available")


def test_prices_of_another_length_are_refused(tmp_path):
    write(tmp_path, "us-east-1a", [1] * 5, [1.0] * 4)
    with pytest.raises(InputError, match="5 samples but 4 prices"):
        read_user_trace(tmp_path, polarity="available")


def test_different_gaps_are_refused(trace):
    write(trace, "us-east-2a", [1] * 900, [1.0] * 900, gap=300)
    with pytest.raises(InputError, match=r"different gaps .*300 s, 600 s"):
        read_user_trace(trace, polarity="available")


def test_missing_prices_name_the_option(tmp_path):
    write(tmp_path, "us-east-1a", [1] * 5)
    with pytest.raises(InputError, match="--set spot_usd_h=PRICE"):
        read_user_trace(tmp_path, polarity="available")
    assert read_user_trace(tmp_path, polarity="available", spot_usd_h=2.0).spot_usd_h.max() == 2.0


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"data": [1]}',
        '{"metadata": {"gap_seconds": 0}, "data": [1]}',
        '{"metadata": {"gap_seconds": 60}, "data": []}',
        '{"metadata": {"gap_seconds": 60}, "data": ["up"]}',
    ],
)
def test_malformed_files_name_the_file_and_the_format(tmp_path, content):
    (tmp_path / "us-east-1a.json").write_text(content)
    with pytest.raises(InputError, match="us-east-1a.json"):
        read_user_trace(tmp_path, polarity="available")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="no trace at"):
        read_user_trace(tmp_path / "nothing", polarity="available")
    with pytest.raises(InputError, match="holds no ZONE.json"):
        read_user_trace(tmp_path, polarity="available")


def test_window_past_the_end_is_refused(trace):
    with pytest.raises(InputError, match=r"runs past the trace, which has 900 ticks \(150.0 h\)"):
        SpotStudy().workload(trace, polarity="available", work_h="100", deadline_ratio="2")
    with pytest.raises(InputError, match="runs past the trace"):
        SpotStudy().workload(trace, polarity="available", work_h="10", start_h="140")


def test_tick_that_does_not_divide_the_cold_start_needs_rounding(tmp_path):
    write(tmp_path, "us-east-1a", [1] * 5000, [1.0] * 5000, gap=195)
    with pytest.raises(InputError, match="--set rounding=true"):
        SpotStudy().workload(tmp_path, polarity="available")
    assert SpotStudy().workload(tmp_path, polarity="available", rounding="true").world(0).job.cold_start == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("colour", "red", "no parameter 'colour'"),
        ("work_h", "-1", "at least 0"),
        ("work_h", "soon", "must be a number"),
        ("rounding", "maybe", "true or false"),
        ("zones", "us-east-9z", "no zone 'us-east-9z'"),
        ("deadline_ratio", "0.5", "at least 1"),
    ],
)
def test_wrong_settings_are_refused(trace, key, value, message):
    with pytest.raises(InputError, match=message):
        SpotStudy().workload(trace, polarity="available", **{key: value})


def test_regions_follow_the_clouds_names():
    assert [region_of(zone) for zone in ("us-east-1a", "europe-west1-c", "eastus-2", "moon")] == [
        "us-east-1",
        "europe-west1",
        "eastus",
        "moon",
    ]


def test_same_trial_for_the_same_seed(trace):
    workload = SpotStudy().workload(trace, polarity="available", work_h=20)
    assert np.array_equal(workload.world(3).market.available, workload.world(3).market.available)
    assert workload.world(0).start_h != workload.world(1).start_h
