"""The public spot traces: what they are, where they come from, and how they become markets."""

from __future__ import annotations

import csv
import datetime
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.datasets import Dataset, Source
from cloudchamber.core.errors import DatasetUnavailable

from .market import Market
from .model import Zone
from .traces import ZoneTrace, egress_matrix, market_of, read_zone, region_of

_TRACES, _ARTIFACT = "221da1ab9bdfe7966da296265d7694d52dc0c5a6", "62b9aaa1942e30c40cb9f6f5d7d03d6823d1d1f7"
_COUNTS_FILE, _H100_FILE = "gcp_h100_16_launched_counts.csv", "gcp_h100_13zones.json"
_PRICES_FILE, _EGRESS_FILE = "aws_v100_spot_prices.json", "aws_interregion_egress.csv"


def _convert(folders: list[Path], target: Path) -> None:
    """Reduce the two unpacked archives to the compact files this module reads."""
    traces, artifact = (next(folder.iterdir()) for folder in folders)
    for part in ("availability", "preemption"):
        shutil.copytree(traces / part, target / part)
    data = artifact / "data"
    _write_h100(data, target / _H100_FILE)
    _write_counts(data / "h100_16_runs", target / _COUNTS_FILE)
    _write_prices(data / "v100_spot_prices.json", target / _PRICES_FILE)
    shutil.copyfile(artifact / "research/data/aws_egress_pricing.csv", target / _EGRESS_FILE)


def _write_h100(data: Path, target: Path) -> None:
    zones, gap, start = {}, 0, ""
    with tarfile.open(data / "converted_multi_region_aligned_h100_16_merged.tar.gz") as tar:
        for name in sorted(name for name in tar.getnames() if name.endswith("/full.json")):
            content = json.load(io.TextIOWrapper(tar.extractfile(name) or io.BytesIO(), encoding="utf-8"))
            zone = name.split("/")[1].split("_")[0]
            prices = json.loads((data / f"spot_price_cache/gcp/{region_of(zone)}_a3-highgpu-8g.json").read_text())
            gap, start = content["metadata"]["gap_seconds"], content["metadata"]["start_time"]
            zones[zone] = {
                "available": "".join("0" if preempted else "1" for preempted in content["data"]),  # the artifact writes 1 = preempted
                "spot_price": prices["price"],
                "on_demand_price": prices["on_demand_price"],
            }
    target.write_text(
        json.dumps(
            {"gap_seconds": gap, "convention": "1 = at least one of 16 requested instances launched", "zones": zones, "start_time": start}
        )
    )


def _write_counts(runs: Path, target: Path) -> None:
    rounds = [json.loads(file.read_text()) for file in sorted(runs.glob("*.json"))]
    zones = sorted(rounds[0]["zone_results"])
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scheduled_at", *zones])
        for each in rounds:
            writer.writerow([each["scheduled_at"], *(each["zone_results"].get(zone, {}).get("instances_created", 0) for zone in zones)])


def _write_prices(source: Path, target: Path) -> None:
    prices = json.loads(source.read_text())
    points = {name.split("_")[0]: [[i, x] for i, x in enumerate(row) if i == 0 or x != row[i - 1]] for name, row in prices.items()}
    target.write_text(
        json.dumps(
            {
                "gap_seconds": 195,
                "ticks": len(next(iter(prices.values()))),
                "on_demand_price": 3.06,
                "note": "[tick,price] change points; see SOURCE",
                "prices": points,
            }
        )
    )


def _hashes() -> dict[str, str]:
    listed = json.loads((Path(__file__).parent / "data_sha256.json").read_text())
    return dict(listed)


@cache
def spot_dataset() -> Dataset:
    """The declared dataset ``spot``."""
    return Dataset(
        name="spot",
        title="Spot availability and prices of AWS and GCP, 2022 to 2025",
        sources=(
            Source(
                f"https://github.com/skypilot-org/spot-traces/archive/{_TRACES}.tar.gz",
                _TRACES,
                "no licence file (skypilot-org/spot-traces)",
            ),
            Source(
                f"https://github.com/andylizf/skynomad-artifact/archive/{_ARTIFACT}.tar.gz", _ARTIFACT, "Apache-2.0 (skynomad-artifact)"
            ),
        ),
        convert=_convert,
        sha256=_hashes(),
        size_bytes=2_193_231,
    )


def gcp_h100(folder: Path, gang: int | None = None) -> Market:
    """13 GCP zones, 8xH100 nodes, 14 days of 600 s. ``gang``: how many of 16 requested must launch; None: at least one, as published."""
    content = json.loads((folder / _H100_FILE).read_text())
    facts = content["zones"]
    zones = tuple(Zone(name, region_of(name), each["on_demand_price"]) for name, each in facts.items())
    up = np.array([[c == "1" for c in each["available"]] for each in facts.values()]).T
    if gang is not None:
        up = _counts(folder / _COUNTS_FILE, [zone.name for zone in zones], len(up)) >= gang
    prices = np.tile([each["spot_price"] for each in facts.values()], (len(up), 1))
    return Market(zones, float(content["gap_seconds"]), up, prices, egress_matrix(zones, gcp_egress([zone.region for zone in zones])))


def gcp_egress(regions: list[str]) -> dict[Any, float]:
    """0.08 USD/GB within Asia, else 0.02: GCP gives no table, so this is a declared assumption."""
    return {None: 0.02, **{(a, b): 0.08 for a in regions for b in regions if a.startswith("asia") and b.startswith("asia")}}


def _counts(file: Path, zones: list[str], ticks: int) -> np.ndarray:
    """Launched counts by tick; the rounds missing from the record (one gap of 110 minutes) count as nothing launched."""
    counts = np.zeros((ticks, len(zones)), dtype=np.int64)
    with file.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    first = datetime.datetime.fromisoformat(rows[0]["scheduled_at"])
    for row in rows:
        tick = round((datetime.datetime.fromisoformat(row["scheduled_at"]) - first).total_seconds() / 600)
        counts[tick] = [int(row[zone]) for zone in zones]
    return counts


def aws_egress(folder: Path) -> dict[Any, float]:
    """AWS list prices between regions, USD per GB."""
    with (folder / _EGRESS_FILE).open(newline="") as handle:
        return {(row["from_region"], row["to_region"]): float(row["price_usd_per_gb"]) for row in csv.DictReader(handle)}


def aws_v100(folder: Path) -> Market:
    """9 AWS zones, one V100 (p3.2xlarge), 45 days of 195 s, with spot prices."""
    content = json.loads((folder / _PRICES_FILE).read_text())
    traces = []
    for zone, points in content["prices"].items():
        trace = read_zone(folder / f"availability/1-node/aws-02-15-2023/{zone}_v100_1.json", zone)
        ticks, values = np.array(points).T
        prices = values[np.searchsorted(ticks, np.arange(content["ticks"]), side="right") - 1]
        traces.append(ZoneTrace(zone, trace.region, trace.gap_s, trace.counts, prices, content["on_demand_price"]))
    return market_of(traces, egress_usd_gb=aws_egress(folder))


def public_traces(folder: Path, where: str, kind: str, *, gang: int, spot_usd_h: float, on_demand_usd_h: float) -> Market:
    """One folder of the public traces, zones of one instance kind; prices are per instance, for zones that have none."""
    files = sorted((folder / where).glob(f"*_{kind}.json"))
    if not files:
        raise DatasetUnavailable(f"{where} has no trace of {kind} below {folder}.")
    traces = []
    for file in files:
        trace = read_zone(file, file.name.split("_")[0])
        prices = np.full(len(trace.counts), spot_usd_h) if trace.spot_usd_h is None else trace.spot_usd_h
        traces.append(ZoneTrace(trace.name, trace.region, trace.gap_s, trace.counts, prices, on_demand_usd_h))
    # two folders hold zones of different lengths; they begin together
    return market_of(traces, gang=gang, egress_usd_gb={None: 0.02, **aws_egress(folder)}, crop=True)


Reader = Callable[[Path], Market]


def _public(where: str, kind: str, gang: int, spot_usd_h: float, on_demand_usd_h: float) -> Reader:
    return lambda folder: public_traces(folder, where, kind, gang=gang, spot_usd_h=spot_usd_h, on_demand_usd_h=on_demand_usd_h)


# every trace of the dataset; list prices (USD/h, us-east-1 or us-central1) stand in where a trace has none
MARKETS: dict[str, Reader] = {
    "gcp-h100": gcp_h100,
    "gcp-h100-gang16": lambda folder: gcp_h100(folder, gang=16),
    "aws-v100": aws_v100,
    "aws-k80x1-2022": _public("availability/1-node/aws-10-26-2022", "k80_1", 1, 0.27, 0.90),
    "aws-k80x8-2022": _public("availability/1-node/aws-10-26-2022", "k80_8", 1, 2.16, 7.20),
    "aws-v100x1-2022": _public("availability/1-node/aws-10-26-2022", "v100_1", 1, 0.918, 3.06),
    "aws-v100x8-2022": _public("availability/1-node/aws-10-26-2022", "v100_8", 1, 7.344, 24.48),
    "aws-v100-gang16-2023": _public("availability/16-node/aws-08-27-2023", "v100_1", 16, 0.918, 3.06),
    "aws-v100-gang4-2023": _public("preemption/4-node/aws-08-03-2023", "v100_1", 4, 0.918, 3.06),
    "aws-v100-2023-04": _public("preemption/1-node/aws-04-22-2023", "v100_1", 1, 0.918, 3.06),
    "aws-cpu64-2023": _public("preemption/1-node/aws-04-19-2023", "intel_64", 1, 1.39, 3.072),
    "gcp-cpu88-2023": _public("preemption/1-node/gcp-04-30-2023", "c3-88", 1, 0.46, 4.61),
}
