from __future__ import annotations

import json

import pytest

from cloudchamber.core import datasets
from cloudchamber.spot import SpotStudy
from cloudchamber.spot.data import MARKETS, spot_dataset
from cloudchamber.spot.workloads import EASY_ZONES


@pytest.mark.data
def test_files_are_the_declared_ones(spot_data):
    assert datasets.check(spot_dataset(), spot_data) == []


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(MARKETS))
def test_every_public_market_loads(name, spot_data):
    market = MARKETS[name](spot_data)
    assert market.ticks > 1000 and market.available.any()


@pytest.mark.data
def test_gang_of_sixteen_is_much_harder_than_one_of_sixteen(spot_data):
    easy, hard = (MARKETS[name](spot_data) for name in ("gcp-h100", "gcp-h100-gang16"))
    zone = [each.name for each in easy.zones].index("europe-west1-c")
    assert easy.available[:, zone].mean() == pytest.approx(0.88, abs=0.01)
    assert hard.available[:, zone].mean() == pytest.approx(0.008, abs=0.002)
    assert (hard.available <= easy.available).mean() > 0.99


@pytest.mark.data
def test_named_workloads_build_their_worlds(spot_data):
    for workload in SpotStudy().workloads().values():
        ready, note = SpotStudy().ready(workload)
        world = ready.world(0)
        assert note == "" and world.market.ticks >= world.job.deadline
    assert len(EASY_ZONES) == 8


def test_without_data_the_twin_stands_in_and_says_so(monkeypatch, tmp_path):
    def refuse(dataset):
        raise datasets.DatasetUnavailable(f"dataset {dataset.name!r} is not here.")

    monkeypatch.setattr("cloudchamber.spot.study.locate", refuse)
    ready, note = SpotStudy().ready(SpotStudy().workloads()["v100-9z-tp2.0"])
    assert ready.is_generated and "generated twins" in note
    world = ready.world(0)
    assert len(world.market.zones) == 9 and world.optimum.cost_usd > 0


@pytest.mark.data
def test_converter_reproduces_the_compact_files_from_the_raw_form(tmp_path, spot_data):
    """The raw layout is rebuilt from the compact files; converting it must give the same bytes."""
    from cloudchamber.spot.data import _write_counts, _write_prices

    prices = json.loads((spot_data / "aws_v100_spot_prices.json").read_text())
    raw = {}
    for zone, points in prices["prices"].items():
        row = []
        for (start, price), (end, _) in zip(points, [*points[1:], [prices["ticks"], 0]], strict=True):
            row += [price] * (end - start)
        raw[f"{zone}_v100_1"] = row
    (tmp_path / "raw.json").write_text(json.dumps(raw))
    _write_prices(tmp_path / "raw.json", tmp_path / "aws_v100_spot_prices.json")
    assert (tmp_path / "aws_v100_spot_prices.json").read_bytes() == (spot_data / "aws_v100_spot_prices.json").read_bytes()

    lines = (spot_data / "gcp_h100_16_launched_counts.csv").read_text().splitlines()
    zones = lines[0].split(",")[1:]
    (tmp_path / "runs").mkdir()
    for i, line in enumerate(lines[1:]):
        at, *counts = line.split(",")
        each = {"scheduled_at": at, "zone_results": {z: {"instances_created": int(c)} for z, c in zip(zones, counts, strict=True)}}
        (tmp_path / "runs" / f"{i:05}.json").write_text(json.dumps(each))
    _write_counts(tmp_path / "runs", tmp_path / "counts.csv")
    assert (tmp_path / "counts.csv").read_bytes() == (spot_data / "gcp_h100_16_launched_counts.csv").read_bytes()
