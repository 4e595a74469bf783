"""Load, index and render 10,000 records: ``python benchmarks/claims.py``.

Beside it, the floor: reading the same files and decoding their JSON without any check, so the ratio is what the checks cost.
"""

from __future__ import annotations

import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.evidence.assessors import assess
from cloudchamber.core.evidence.provenance import Provenance
from cloudchamber.core.evidence.standing import Standing, table, to_markdown
from cloudchamber.core.evidence.store import Store
from cloudchamber.core.outcome import Metric

RECORDS, CLAIMS = 10_000, 200


def claim(i: int) -> Claim:
    return Claim(
        id=f"toy-{i}",
        text="A is cheap.",
        source=Source("Toy", "Nowhere", "2025"),
        published=Published("5 %", 1.05),
        quantity=Metric("cost_usd", "USD"),
        comparator="the optimum",
        population=Population("toy", ("w", "v")),
        tolerance=Tolerance("2025-01-01", high=1.1),
        measure=Measure("ratio", policies=("A",)),
        kind="simulated",
        reproduce=("chamber", "study", "toy", "--json"),
    )


def main() -> None:
    """Print seconds and the ratio to the floor."""
    rows = [
        {
            "study": "toy",
            "workload": workload,
            "policy": policy,
            "seed": seed,
            "cost_usd": cost + seed / 97,
            "bound": 1.0,
            "ratio": cost,
            "void": None,
            "generated": False,
            "evidence": "simulated",
        }
        for workload in ("w", "v")
        for policy, cost in (("A", 1.02), ("B", 1.9))
        for seed in range(12)
    ]
    code, start, claims = Provenance("m", "r"), datetime(2025, 2, 1, tzinfo=UTC), [claim(i) for i in range(CLAIMS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = Store(folder)
        template = [assess(each, rows) for each in claims]
        writer.merge(
            msgspec.structs.replace(template[i % CLAIMS], method=code.method(claims[i % CLAIMS], start + timedelta(hours=i), 1.0))
            for i in range(RECORDS)
        )
        size = sum(path.stat().st_size for path in folder.iterdir())
        begin = time.perf_counter()
        for path in folder.glob("*.json"):
            json.loads(path.read_bytes())
        floor = time.perf_counter() - begin
        begin = time.perf_counter()
        store = Store(folder)
        loaded = time.perf_counter() - begin
        standings = [Standing.of("toy", each, store, code) for each in claims]
        text = f"{table(standings)}\n{to_markdown(standings)}"
        total = time.perf_counter() - begin
    print(
        f"{len(store)} records, {size / 1e6:.0f} MB: load and index {loaded:.2f} s, "
        f"with render of {CLAIMS} claims ({len(text)} characters) {total:.2f} s (bar: 2 s); "
        f"read and json.loads alone {floor:.2f} s, ratio {total / floor:.2f}"
    )


if __name__ == "__main__":
    main()
