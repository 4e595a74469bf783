"""The append-only store of evidence: one file per record, named by its hash.

Nothing deletes or rewrites a file: a record can only be superseded by a newer one, so two stores merge by copying the files the other
lacks, and git has nothing to resolve.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cloudchamber.core.errors import InputError

from .canonical import instant
from .record import Evidence, Unreadable, parse

PACKAGED = Path(__file__).parents[2] / "evidence"


class Store:
    """Records in folders, read together; new ones go to the last folder.

    Parameters
    ----------
    folders : paths
        Default: the records that come with cloudchamber.

    Raises
    ------
    InputError
        If a file is not a record or was tampered with.
    """

    def __init__(self, *folders: str | Path) -> None:
        self.folders = tuple(Path(folder) for folder in folders) or (PACKAGED,)
        self._records: dict[str, Evidence | Unreadable] = {}
        self._index: dict[str, list[Evidence | Unreadable]] = {}
        for folder in self.folders:
            for name in sorted(os.listdir(folder)) if folder.is_dir() else ():  # noqa: PTH208
                if name.endswith(".json"):
                    with open(os.path.join(folder, name), "rb", buffering=0) as file:  # noqa: PTH118, PTH123 (there may be 10,000)
                        self._keep(parse(file.read(), name))

    def _keep(self, record: Evidence | Unreadable) -> None:
        if record.id not in self._records:
            self._records[record.id] = record
            self._index.setdefault(record.claim, []).append(record)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Evidence | Unreadable]:
        """Every record, unreadable ones too, in order of id."""
        return iter(sorted(self._records.values(), key=lambda each: each.id))

    def of(self, claim: str) -> list[Evidence]:
        """Return a claim's records, oldest run first."""
        found = [each for each in self._index.get(claim, ()) if isinstance(each, Evidence)]
        return sorted(found, key=lambda each: (instant(each.method.ran), each.id))

    def unreadable(self, claim: str) -> list[Unreadable]:
        """Return a claim's records of a newer schema."""
        return [each for each in self._index.get(claim, ()) if isinstance(each, Unreadable)]

    def newest(self, claim: str) -> Evidence | None:
        """Return the record that speaks for a claim: the newest run, but one that could not test it never hides one that did."""
        records = self.of(claim)
        return next((each for each in reversed(records) if each.verdict != "not testable here"), records[-1] if records else None)

    def add(self, record: Evidence) -> Evidence:
        """Append a record to the last folder and return it as kept, naming the one it supersedes.

        Raises
        ------
        InputError
            If it does not say how it came about, or its limits were changed after an earlier run had been seen.
        """
        if not (record.method.ran and record.method.command):
            raise InputError(f"record of {record.claim!r} does not say when and by which command it ran; give the assessor a Method.")
        earlier = [each for each in self.of(record.claim) if each.id != record.id]
        for each in earlier:
            if _limits(each) != _limits(record) and instant(record.tolerance.stated) <= instant(each.method.ran):
                raise InputError(
                    f"claim {record.claim!r}: its tolerance was {each.tolerance} in the run of {each.method.ran} and is now "
                    f"{record.tolerance}, yet stated {record.tolerance.stated}; state when it was changed, after that run."
                )
        newest = self.newest(record.claim)
        if newest is not None and not record.supersedes and record.id not in self._records:
            record = msgspec.structs.replace(record, supersedes=newest.id)
        self._write(record.claim, record.id, record.to_json())
        self._keep(record)
        return record

    def merge(self, records: Iterable[Evidence | Unreadable]) -> int:
        """Keep what another store or an export holds and this one lacks; return how many were new."""
        new = [each for each in records if each.id not in self._records]
        for each in new:
            self._write(each.claim, each.id, each.to_json() if isinstance(each, Evidence) else {"id": each.id, **each.raw})
            self._keep(each)
        return len(new)

    def _write(self, claim: str, identity: str, plain: Mapping[str, Any]) -> None:
        folder = self.folders[-1]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{re.sub(r'[^a-z0-9-]', '_', claim)}.{identity[:16]}.json"
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)  # whole or not at all; the name is the content's hash, so nothing else can be overwritten


def _limits(record: Evidence) -> tuple[float | None, float | None]:
    return record.tolerance.low, record.tolerance.high
