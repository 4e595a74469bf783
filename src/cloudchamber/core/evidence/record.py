"""Evidence: the record of one attempt at a claim.

A record's id is the SHA-256 of its canonical bytes. Defaults are left out of them, so a field added later with a default changes no id; a
default, once given, must stay.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, get_args

import msgspec

from cloudchamber.core.claims import AssessorName, Kind, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.errors import InputError

from .canonical import canonical, digest, instant

Verdict = Literal["holds", "partly", "fails", "not testable here", "untested"]
_KINDS, _VERDICTS = frozenset(get_args(Kind)), frozenset(get_args(Verdict))
SCHEMA = 1
MAX_BYTES = 20_000


class DataUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """A dataset a run could read: name, licence, one hash over its files (None: it was not on that machine)."""

    name: str
    licence: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not self.licence.strip():
            raise InputError(f"dataset {self.name!r} has no licence; declare it where the dataset is declared.")


class Host(msgspec.Struct, frozen=True, omit_defaults=True):
    """The machine in its class, never its name or its user's."""

    cores: int = 0
    memory_gib: float = 0.0
    system: str = ""
    python: str = ""


class Method(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a record came about. ``ran`` is the start of the run, an ISO time; ``dirty`` None where no git is."""

    ran: str = ""
    seconds: float = 0.0
    command: tuple[str, ...] = ()
    module_sha256: str = ""
    runner_sha256: str = ""
    claim_sha256: str = ""
    data: tuple[DataUse, ...] = ()
    version: str = ""
    commit: str = ""
    dirty: bool | None = None
    host: Host = Host()
    packages: dict[str, str] = {}


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """The claim on one workload of its population."""

    workload: str
    n: int
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    holds: bool = False


class Series(msgspec.Struct, frozen=True, omit_defaults=True):
    """The measured rows of one policy on one workload, in columns; None is a void trial."""

    workload: str
    policy: str
    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    bounds: tuple[float, ...] = ()


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came out.

    ``interval`` (95 %) is None where the claim is about exactly these trials. ``means`` holds the quantity's mean, in its unit, for every
    policy of the rows that had no void trial, and for the bound. ``rows_sha256`` is over all rows the command wrote; ``series`` holds those
    the estimate was computed from, unless they would make the record longer than 20 kB.
    """

    n: int
    void: int
    rows_sha256: str
    seeds: str = ""
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    parts: tuple[Part, ...] = ()
    means: dict[str, float] = {}
    void_reasons: tuple[str, ...] = ()
    series: tuple[Series, ...] = ()


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """One attempt at one claim: the claim as it stood, the method, the result, and the verdict that follows by rule.

    Raises
    ------
    InputError
        If the parts contradict each other: no trials, NaN, an interval without its estimate, a tolerance stated after the run,
        an unknown kind or verdict.
    """

    schema: int = SCHEMA
    claim: str
    study: str
    text: str
    source: Source
    published: Published
    quantity: str
    unit: str
    direction: str
    comparator: str
    population: Population
    tolerance: Tolerance
    measure: Measure
    assessor: AssessorName
    kind: Kind
    limits: tuple[str, ...] = ()
    method: Method = Method()
    result: Result
    verdict: Verdict
    reason: str = ""
    supersedes: str = ""

    def __post_init__(self) -> None:
        result, low_high = self.result, self.result.interval
        numbers = [each for each in (result.estimate, *(low_high or ()), *result.means.values()) if each is not None]
        if self.kind not in _KINDS or self.verdict not in _VERDICTS:
            raise InputError(f"record of {self.claim!r}: unknown kind {self.kind!r} or verdict {self.verdict!r}.")
        if result.n < 1:
            raise InputError(f"record of {self.claim!r}: n is {result.n}; a record needs at least one trial.")
        if not all(map(math.isfinite, numbers)):
            raise InputError(f"record of {self.claim!r}: {numbers} holds NaN or infinity; correct the rows.")
        if low_high is not None and (result.estimate is None or not low_high[0] <= result.estimate <= low_high[1]):
            raise InputError(f"record of {self.claim!r}: the interval {low_high} does not hold the estimate {result.estimate}.")
        if self.method.ran and instant(self.tolerance.stated) > instant(self.method.ran):
            raise InputError(
                f"record of {self.claim!r}: its tolerance was stated {self.tolerance.stated}, after the run of "
                f"{self.method.ran}; run it again."
            )

    @cached_property
    def id(self) -> str:
        """SHA-256 of the record's canonical bytes."""
        return digest(_plain(self))

    def to_json(self) -> dict[str, Any]:
        """Return plain data, the id first: what a file of the store holds."""
        return {"id": self.id, **_plain(self)}


class Unreadable(msgspec.Struct, frozen=True):
    """A record written by a newer cloudchamber: kept and shown, not understood."""

    id: str
    claim: str
    raw: dict[str, Any]


def _plain(record: Evidence) -> dict[str, Any]:
    # by way of convert, so that 1 in a float field is 1.0 before as after a round trip
    return msgspec.to_builtins(msgspec.convert(msgspec.to_builtins(record), Evidence))  # type: ignore[no-any-return]


def parse(data: bytes | Mapping[str, Any], place: str = "record") -> Evidence | Unreadable:
    """Return the record in a file's bytes, or in the plain data of an export.

    Raises
    ------
    InputError
        If it is not a record, or its id is not the hash of its content.
    """
    try:
        raw = dict(msgspec.json.decode(data, type=dict[str, Any]) if isinstance(data, bytes) else data)
        identity, schema = raw.pop("id"), raw.get("schema", 1)
        actual = digest(raw)
        if actual != identity:
            raise InputError(
                f"{place} is forged or damaged: its id is {str(identity)[:16]}, but its content hashes to {actual[:16]}; restore it."
            )
        if schema > SCHEMA:
            return Unreadable(identity, str(raw.get("claim", "?")), raw)
        record = msgspec.convert(raw, Evidence)
    except (msgspec.ValidationError, msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{place} is not an evidence record: {error}") from None
    record.__dict__["id"] = identity
    return record


def private(text: str) -> str:
    """Return the text with the folders of every absolute path, which may name a user, left out."""
    return re.sub(r"(?<![\w.:/])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+-]+)+[/\\]([\w.@+-]+)", r"…/\1", text)


def size(record: Evidence) -> int:
    """Return the length of a record's canonical bytes."""
    return len(canonical(_plain(record)))
