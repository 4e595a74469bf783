"""Where each claim stands: its newest record, whether that is stale, and how it is shown and exported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cloudchamber.core.claims import Claim
from cloudchamber.core.errors import InputError
from cloudchamber.core.results import Table, number

from .provenance import Provenance
from .record import Evidence, Unreadable, parse, private
from .store import Store

COLUMNS = ("claim", "published", "ours", "evidence", "verdict")


@dataclass(frozen=True)
class Standing:
    """A claim of a study, the record that speaks for it, and why that is stale if it is."""

    study: str
    claim: Claim
    record: Evidence | None
    stale: tuple[str, ...] = ()
    records: int = 0
    failing: int = 0
    unreadable: int = 0

    @classmethod
    def of(cls, study: str, claim: Claim, store: Store, now: Provenance | None = None) -> Standing:
        """Look a claim up; without ``now`` nothing is said about staleness."""
        record, records = store.newest(claim.id), store.of(claim.id)
        stale = now.stale_because(record, claim) if record is not None and now is not None else ()
        failing = sum(each.verdict == "fails" for each in records)
        return cls(study, claim, record, stale, len(records), failing, len(store.unreadable(claim.id)))

    @property
    def status(self) -> str:
        """``stale`` if the record's hashes no longer match, else its verdict."""
        return "untested" if self.record is None else "stale" if self.stale else self.record.verdict

    @property
    def passes_check(self) -> bool:
        """Whether ``--check`` accepts it: an untested claim is not silent, a stale one is wrong, a failing one must say why it does."""
        return self.status != "stale" and (self.status != "fails" or bool(self.claim.miss))

    @property
    def why(self) -> str:
        """Reason for the status, and what else is on record."""
        notes = list(self.stale) or ([self.record.reason] if self.record is not None and self.record.reason else [])
        notes += [f"known: {self.claim.miss}"] if self.status == "fails" and self.claim.miss else []
        earlier = self.failing - (self.record is not None and self.record.verdict == "fails")
        notes += [f"{earlier} other failing record{'s' * (earlier > 1)}"] if earlier else []
        notes += [f"{self.unreadable} unreadable (newer schema)"] if self.unreadable else []
        return "; ".join(notes)

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        status = f"{self.status} ({self.why})" if self.why else self.status
        return (self.claim.id, self.claim.published.text, ours(self.record), self.claim.kind, status)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for machines."""
        record, result = self.record, self.record.result if self.record else None
        return {
            "claim": self.claim.id,
            "study": self.study,
            "published": self.claim.published.text,
            "estimate": result.estimate if result else None,
            "interval": result.interval if result else None,
            "n": result.n if result else 0,
            "evidence": self.claim.kind,
            "status": self.status,
            "verdict": record.verdict if record else "untested",
            "why": self.why,
            "record": record.id if record else None,
            "records": self.records,
            "failing": self.failing,
            "reproduce": [private(word) for word in self.claim.reproduce],
        }


def ours(record: Evidence | None) -> str:
    """Return our figure with its interval and number of trials."""
    if record is None or record.result.estimate is None:
        return ""
    result = record.result
    interval = f" [{number(result.interval[0])}, {number(result.interval[1])}]" if result.interval else ""
    return f"{number(result.estimate)}{interval}, n = {result.n}"


def table(standings: Iterable[Standing]) -> Table:
    """Return claim, published figure, ours, kind of evidence, verdict."""
    return Table(COLUMNS, tuple(each.cells() for each in standings))


def to_markdown(standings: Sequence[Standing]) -> str:
    """Return the claims as a Markdown page: the table, and below it what each figure is about and how to get it again."""
    lines = ["# Claims", "", table(standings).to_markdown(), ""]
    for each in standings:
        claim, record = each.claim, each.record
        source, population = claim.source, claim.population
        lines += [
            f"## {claim.id}",
            "",
            claim.text,
            "",
            f"- Published: {claim.published.text} ({source.title}, {source.place}, {source.date}; {source.interest})",
            f"- Population: {population.scale}; workloads {', '.join(population.workloads)}; hardware {population.hardware}",
            f"- Against: {claim.comparator}",
            f"- Holds if {claim.tolerance} (stated {claim.tolerance.stated})",
            f"- Limits: {', '.join(claim.limits) or 'none listed'}",
            f"- Command: `{private(' '.join(claim.reproduce)) or 'none'}`",
        ]
        if record is not None:
            means = ", ".join(f"{name} {number(mean)}" for name, mean in record.result.means.items())
            ran, version = record.method.ran, record.method.version or "?"
            lines += [
                f"- Ran {ran}, version {version}, {record.method.seconds:g} s; void {record.result.void}",
                f"- Means in {record.unit}: {means or 'none'}",
                f"- Record {record.id} of {each.records}, {each.failing} failing",
            ]
        lines.append("")
    return "\n".join(lines)


def check_export(path: Path) -> None:
    """Check that an export can be written there.

    Raises
    ------
    InputError
        For an ending other than .md and .json, or a folder that is not there.
    """
    if path.suffix not in (".md", ".json"):
        raise InputError(f"--export writes .md or .json, got {path.name!r}.")
    if not path.parent.is_dir():
        raise InputError(f"no folder {str(path.parent)!r} to export to.")


def export(path: Path, standings: Sequence[Standing], store: Store) -> None:
    """Write the claims, to .md, or with every record whole to .json."""
    check_export(path)
    wanted = {each.claim.id for each in standings}
    records = [{"id": each.id, **each.raw} if isinstance(each, Unreadable) else each.to_json() for each in store if each.claim in wanted]
    plain = {"cloudchamber_evidence": 1, "claims": msgspec.to_builtins([each.to_json() for each in standings]), "records": records}
    text = to_markdown(standings) if path.suffix == ".md" else json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def read_export(path: Path) -> list[Evidence | Unreadable]:
    """Return the records of a .json export, for ``Store.merge``.

    Raises
    ------
    InputError
        If it is not one, or a record in it was tampered with.
    """
    try:
        records = msgspec.json.decode(path.read_bytes())["records"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path.name} is not an export of claims: {error}") from None
    return [parse(each, path.name) for each in records]
