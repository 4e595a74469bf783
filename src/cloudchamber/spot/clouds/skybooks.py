"""The books of a run on real clouds: what was launched, seen and paid for, by the second."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.spot.model import SpotSpec

from .journal import Journal


class Books:
    """A journal of launches, ends, copies, probes, prices and faults, each with the time at which it was written.

    Parameters
    ----------
    path : Path
    spec : SpotSpec
        Gives on-demand prices, and those of a copy and a probe.
    """

    def __init__(self, path: Path, spec: SpotSpec) -> None:
        self.journal, self.spec = Journal(path), spec
        if not self.journal.records:
            self.note(kind="run", run=uuid.uuid4().hex[:8])
        self.run = str(self.journal.records[0]["run"])

    def note(self, **record: Any) -> None:
        """Write a record, now."""
        self.journal.append(**record, at=time.time())

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind."""
        return [record for record in self.journal.records if record["kind"] == kind]

    def end(self, number: int, fate: str) -> dict[str, Any]:
        """Write that an instance is no more."""
        self.note(kind="end", instance=number, fate=fate)
        return self.journal.records[-1]

    def ends(self) -> dict[int, dict[str, Any]]:
        """The end of every instance that has one."""
        return {record["instance"]: record for record in self.of("end")}

    def fault(self, error: Exception) -> None:
        """Count a fault that was survived."""
        self.note(kind="fault", fault=type(error).__name__, text=str(error)[:500])

    def note_prices(self, usd_h: np.ndarray) -> np.ndarray:
        """Write the spot prices down if they changed, and return them."""
        usd_h = np.asarray(usd_h, dtype=float)
        seen = self.of("prices")
        if not seen or seen[-1]["usd_h"] != usd_h.tolist():
            self.note(kind="prices", usd_h=usd_h.tolist())
        return usd_h

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.time() - float(self.journal.records[0]["at"])

    def since(self, record: Mapping[str, Any]) -> float:
        """Seconds from the run's beginning to a record."""
        return float(record["at"]) - float(self.journal.records[0]["at"])

    def ledger(self) -> dict[str, float]:
        """The bill in USD. A machine pays from when it was asked for; one that was refused, or only probed for, does not."""
        now, ends = time.time(), self.ends()
        spent = {"spot_usd": 0.0, "on_demand_usd": 0.0, "egress_usd": 0.0, "probe_usd": 0.0}
        for record in self.of("launch"):
            end = ends.get(record["instance"], {"at": now, "fate": ""})
            if end["fate"] == "refused":
                continue
            if record["mode"] == "spot":
                spent["spot_usd"] += self._spot_usd(record["zone"], record["at"], end["at"])
            else:
                spent["on_demand_usd"] += self.spec.zones[record["zone"]].on_demand_usd_h * (end["at"] - record["at"]) / 3600
        spent["egress_usd"] = sum(float(self.spec.egress_usd[each["source"], each["target"]]) for each in self.of("egress"))
        spent["probe_usd"] = sum(each["usd_h"] * self.spec.probe_s / 3600 for each in self.of("probe"))
        return spent

    def _spot_usd(self, zone: int, start: float, end: float) -> float:
        seen = self.of("prices")
        if not seen:
            return 0.0
        edges = np.clip([*(each["at"] for each in seen), np.inf], start, end)
        edges[0] = start  # before the first price was seen, that one
        return float(sum(each["usd_h"][zone] * hours for each, hours in zip(seen, np.diff(edges) / 3600, strict=True)))
