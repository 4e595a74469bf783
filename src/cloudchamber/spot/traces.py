"""Reading availability traces into markets: a user's own folder or CSV file, and the public formats they follow.

A folder holds one JSON file per zone, ``ZONE.json``::

    {"metadata": {"gap_seconds": 600, "region": "us-east-1", "on_demand_usd_h": 3.06},
     "data": [1, 1, 0, ...], "prices": [0.92, 0.92, ...]}

``data`` counts instances (or is 0/1), ``prices`` is the spot price in USD/h, as long as ``data``. A CSV file has the columns
``zone,time_s,available,spot_usd_h`` and, optionally, ``region`` and ``on_demand_usd_h``. Traces disagree on whether 1 means available or
preempted, so a user must declare the polarity.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError

from .market import Market
from .model import Zone

POLARITIES = ("available", "preempted")


@dataclass(frozen=True, eq=False)
class ZoneTrace:
    """One zone's samples: counts (instances available, or preempted flags), spot prices, static facts, and its start where known."""

    name: str
    region: str
    gap_s: float
    counts: np.ndarray
    spot_usd_h: np.ndarray | None
    on_demand_usd_h: float | None
    start: str | float | None = None


def region_of(zone: str) -> str:
    """Region of a zone by the naming of AWS (us-east-1a), GCP (us-east1-b) and others (everything before the last dash)."""
    match = re.fullmatch(r"([a-z]+(?:-[a-z]+)+-\d+)[a-z]", zone)
    return match.group(1) if match else zone.rpartition("-")[0] or zone


def read_user_trace(
    path: Path,
    *,
    polarity: str | None,
    gang: int = 1,
    spot_usd_h: float | None = None,
    on_demand_usd_h: float | None = None,
    egress_usd_gb: float = 0.02,
) -> Market:
    """Read a user's folder or CSV file.

    Parameters
    ----------
    path : Path
    polarity : {"available", "preempted"}
        What 1 (or a count) in the data means. Must be given.
    gang : int
        Instances that must be available at once, where the data counts them.
    spot_usd_h, on_demand_usd_h : float, optional
        Prices for zones whose files have none.
    egress_usd_gb : float
        Price of copying between regions.

    Raises
    ------
    InputError
        Saying which file and what to fix.
    """
    if polarity not in POLARITIES:
        raise InputError(
            f"{path}: the trace does not say whether 1 means available or preempted; add --set polarity=available or "
            f"--set polarity=preempted{'' if polarity is None else f' (got {polarity!r})'}."
        )
    if not path.exists():
        raise InputError(f"no trace at {str(path)!r}; give a folder of ZONE.json files or a CSV file.")
    if path.is_dir():
        traces = [read_zone(file) for file in sorted(path.glob("*.json"))]
    else:
        traces = [read_zone(path)] if path.suffix == ".json" else _read_csv(path)
    if not traces:
        raise InputError(f"{path} holds no {'ZONE.json file' if path.is_dir() else 'rows'}; the quick start shows the formats.")
    largest = max(int(trace.counts.max()) for trace in traces)
    if gang > max(largest, 1):
        raise InputError(f"gang={gang}, but the trace never counts more than {largest} instances in a zone; use a gang of at most that.")
    if polarity == "preempted":
        if gang > 1:
            raise InputError("gang needs counts of available instances; polarity=preempted has none.")
        traces = [_flipped(trace) for trace in traces]
    return market_of(traces, gang=gang, spot_usd_h=spot_usd_h, on_demand_usd_h=on_demand_usd_h, egress_usd_gb={None: egress_usd_gb})


def market_of(
    traces: Sequence[ZoneTrace],
    *,
    gang: int = 1,
    spot_usd_h: float | None = None,
    on_demand_usd_h: float | None = None,
    egress_usd_gb: Mapping[Any, float],
    crop: bool = False,
) -> Market:
    """Join zones into a market: available where the count reaches ``gang``.

    ``egress_usd_gb`` maps (from region, to region) to a price; its key None is the price of pairs it does not name. ``crop`` cuts all
    zones to the shortest instead of refusing unequal lengths.

    Raises
    ------
    InputError
        For unequal lengths or gaps, or missing prices.
    """
    lengths = {trace.name: len(trace.counts) for trace in traces}
    if len(set(lengths.values())) > 1 and not crop:
        short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise InputError(
            f"traces have unequal lengths: {short} has {lengths[short]} samples, {long} has {lengths[long]}; cut them to the "
            "same window (start and end) first."
        )
    gaps = {trace.gap_s for trace in traces}
    if len(gaps) > 1:
        raise InputError(
            f"traces have different gaps between samples: {', '.join(f'{gap:g} s' for gap in sorted(gaps))}; resample them to one."
        )
    starts = {trace.start for trace in traces}
    if len(starts) > 1:
        raise InputError(f"traces start at different times ({', '.join(sorted(map(str, starts))[:3])}); cut them to the same window first.")
    ticks = min(lengths.values())
    prices = [_prices(trace, ticks, spot_usd_h) for trace in traces]
    zones = tuple(Zone(trace.name, trace.region, _on_demand(trace, on_demand_usd_h)) for trace in traces)
    return Market(
        zones,
        gaps.pop(),
        np.stack([trace.counts[:ticks] >= gang for trace in traces], axis=1),
        np.stack(prices, axis=1),
        egress_matrix(zones, egress_usd_gb),
    )


def egress_matrix(zones: Sequence[Zone], usd_gb: Mapping[Any, float]) -> np.ndarray:
    """Price per GB between zones: 0 inside a region, else the table's entry, else its default (key None)."""

    def price(a: Zone, b: Zone) -> float:
        if a.region == b.region:
            return 0.0
        found = usd_gb.get((a.region, b.region), usd_gb.get(None))
        if found is None:
            raise InputError(f"no egress price from {a.region} to {b.region}; give --set egress_usd_gb=PRICE.")
        return found

    return np.array([[price(a, b) for b in zones] for a in zones])


def _prices(trace: ZoneTrace, ticks: int, default: float | None) -> np.ndarray:
    if trace.spot_usd_h is None:
        if default is None:
            raise InputError(f'zone {trace.name} has no spot prices; add "prices" to its file or --set spot_usd_h=PRICE.')
        return np.full(ticks, float(default))
    if len(trace.spot_usd_h) != len(trace.counts):
        raise InputError(
            f"zone {trace.name} has {len(trace.counts)} samples but {len(trace.spot_usd_h)} prices; give one price per sample."
        )
    bad = np.flatnonzero(~np.isfinite(trace.spot_usd_h) | (trace.spot_usd_h < 0))
    if len(bad):
        raise InputError(
            f"zone {trace.name}: price {trace.spot_usd_h[bad[0]]} at sample {bad[0]} is not a finite number of at least 0; "
            "fill it (for example with the price before) or drop the sample from every zone."
        )
    return trace.spot_usd_h[:ticks]


def _on_demand(trace: ZoneTrace, default: float | None) -> float:
    price = trace.on_demand_usd_h if trace.on_demand_usd_h is not None else default
    if price is None:
        raise InputError(f'zone {trace.name} has no on-demand price; add "on_demand_usd_h" to its metadata or --set on_demand_usd_h=PRICE.')
    return float(price)


def _flipped(trace: ZoneTrace) -> ZoneTrace:
    values = set(np.unique(trace.counts).tolist())
    if not values <= {0, 1}:
        raise InputError(
            f"zone {trace.name}: polarity=preempted needs 0/1 data, got {sorted(values)[:5]}; counts are of available instances."
        )
    return replace(trace, counts=1 - trace.counts)


def read_zone(file: Path, name: str | None = None) -> ZoneTrace:
    """Read one zone's JSON file; the zone's name is the file's stem unless given.

    Raises
    ------
    InputError
        If it is not in the format above.
    """
    try:
        # Python's JSON reads NaN as a number, so a bad price is reported as one, with its place
        content = json.loads(file.read_text(encoding="utf-8"))
        meta, data = content.get("metadata", {}), content["data"]
        gap_s = float(meta["gap_seconds"])
        counts = _whole(data)
        prices = content.get("prices")
        spot = None if prices is None else np.array(prices, dtype=float)
        on_demand = meta.get("on_demand_usd_h")
        on_demand = None if on_demand is None else float(on_demand)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError) as error:
        raise InputError(
            f"{file}: not a zone trace ({type(error).__name__}: {error}); expected "
            '{"metadata": {"gap_seconds": s}, "data": [...], "prices": [...]}.'
        ) from None
    if len(counts) == 0 or (counts < 0).any() or not (math.isfinite(gap_s) and gap_s > 0):
        raise InputError(f"{file}: needs at least one sample, counts of at least 0 and a positive gap_seconds.")
    zone = name or str(meta.get("zone", file.stem))
    return ZoneTrace(zone, str(meta.get("region", region_of(zone))), gap_s, counts, spot, on_demand, meta.get("start_time"))


def _whole(values: Any) -> np.ndarray:
    numbers = np.array(values, dtype=float)
    bad = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.floor(numbers)))
    if len(bad):
        raise ValueError(f"sample {bad[0]} is {values[bad[0]]}; availability is 0, 1 or a count")
    return numbers.astype(np.int64)


def _read_csv(file: Path) -> list[ZoneTrace]:
    rows: dict[str, list[dict[str, str]]] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            missing = {"zone", "time_s", "available", "spot_usd_h"} - set(reader.fieldnames or ())
            if missing:
                raise InputError(f"{file}: the CSV lacks the column {sorted(missing)[0]!r}; needed: zone,time_s,available,spot_usd_h.")
            for row in reader:
                rows.setdefault(row["zone"], []).append(row)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"cannot read {str(file)!r} as a CSV file: {error}.") from None
    return [_zone_of_rows(file, zone, each) for zone, each in rows.items()]


def _zone_of_rows(file: Path, zone: str, rows: list[dict[str, str]]) -> ZoneTrace:
    try:
        times = np.array([float(row["time_s"]) for row in rows])
        counts = _whole([float(row["available"]) for row in rows])
        spot = np.array([float(row["spot_usd_h"]) for row in rows])
        on_demand = float(rows[0]["on_demand_usd_h"]) if rows[0].get("on_demand_usd_h") else None
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{file}: zone {zone}: {error}; every row needs numbers for time and price, and a whole one for available."
        ) from None
    gaps = np.diff(times)
    if len(times) < 2 or gaps[0] <= 0 or not np.allclose(gaps, gaps[0]):
        raise InputError(f"{file}: zone {zone}: time_s must rise in equal steps, at least two; resample the trace.")
    if (counts < 0).any():
        raise InputError(f"{file}: zone {zone}: available must not be negative.")
    return ZoneTrace(zone, rows[0].get("region") or region_of(zone), float(gaps[0]), counts, spot, on_demand, float(times[0]))
