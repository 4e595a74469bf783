"""MVStore: an in-process multi-version key-value engine with four ways to keep histories serialisable.

* ``mvtso``: multi-version timestamp ordering. A read sees the newest version below its timestamp and waits while that is uncommitted; a
  write that comes after a younger transaction has read past it aborts.
* ``mvschedo``: the same, and a read of a key waits for those scheduled before it that are expected to write that key, so the write
  does not come too late. A misprediction falls back to ``mvtso``.
* ``2pl``: strict two-phase locking, wait-die: an older transaction waits for a younger one, a younger one dies.
* ``occ``: reads note versions, writes are kept back, commit checks that what was read is still the newest.

Every verb answers at once; whoever drives the store sleeps and waits. Not safe for threads: hold a lock around each call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

Protocol = Literal["mvtso", "mvschedo", "2pl", "occ"]
PROTOCOLS: tuple[Protocol, ...] = ("mvtso", "mvschedo", "2pl", "occ")
Answer = Literal["ok", "wait", "abort"]


@dataclass
class Version:
    """A value of a key: who wrote it, the youngest that read it, whether it is committed. ``place`` orders versions."""

    place: int
    value: int
    is_committed: bool = True
    read_by: int = 0


@dataclass
class Transaction:
    """One attempt.

    Parameters
    ----------
    number : int
    stamp : int
        Its place in the order; the lower, the earlier (wait-die: the older).
    expected : frozenset of int
        Keys it will probably write.
    """

    number: int
    stamp: int
    expected: frozenset[int] = frozenset()
    seen: dict[int, int] = field(default_factory=dict)  # key: place of the version read
    wrote: dict[int, int] = field(default_factory=dict)  # key: value


@dataclass(frozen=True)
class Committed:
    """A line of the history: where in the serial order, what versions were read, what was written."""

    place: int
    number: int
    seen: dict[int, int]
    wrote: dict[int, int]


class MVStore:
    """The engine.

    Parameters
    ----------
    protocol : {"mvtso", "mvschedo", "2pl", "occ"}
    log : Path or None
        Write-ahead log: every commit is on the disk before it is answered.

    Examples
    --------
    >>> store = MVStore("mvtso")
    >>> old, young = store.begin(1, 1), store.begin(2, 2)
    >>> store.read(young, 7), store.write(old, 7, 5)
    ('ok', 'abort')
    """

    def __init__(self, protocol: Protocol = "mvtso", log: Path | None = None) -> None:
        self.protocol = protocol
        self.history: list[Committed] = []
        self._versions: dict[int, list[Version]] = {}
        self._active: dict[int, Transaction] = {}
        self._writers: dict[int, set[int]] = {}  # mvschedo: stamps expected to write a key
        self._locks: dict[int, dict[int, bool]] = {}  # 2pl: key: {stamp: is exclusive}
        self._wanted: dict[int, set[int]] = {}  # 2pl: stamps that wait for a key; no younger one may overtake them
        self._log: IO[str] | None = log.open("a", encoding="utf-8") if log else None

    def begin(self, number: int, stamp: int, expected: Iterable[int] = ()) -> Transaction:
        """Announce a transaction; its expectations stand in the queues from now on."""
        made = Transaction(number, stamp, frozenset(expected) if self.protocol == "mvschedo" else frozenset())
        self._active[stamp] = made
        for key in made.expected:
            self._writers.setdefault(key, set()).add(stamp)
        return made

    def read(self, txn: Transaction, key: int, *, patient: bool = True) -> Answer:
        """Read a key; ``patient=False`` waits for no expectation any more."""
        if key in txn.wrote or key in txn.seen:
            return "ok"
        if self.protocol == "2pl" and (answer := self._lock(txn, key, False)) != "ok":
            return answer
        if self.protocol == "mvschedo" and patient and any(stamp < txn.stamp for stamp in self._writers.get(key, ())):
            return "wait"
        version = self._below(key, txn.stamp)
        if not version.is_committed:
            return "wait"
        version.read_by = max(version.read_by, txn.stamp)
        txn.seen[key] = version.place
        return "ok"

    def write(self, txn: Transaction, key: int, value: int) -> Answer:
        """Write a key."""
        if self.protocol == "2pl" and (answer := self._lock(txn, key, True)) != "ok":
            return answer
        if self.protocol.startswith("mv") and key not in txn.wrote:
            if self._below(key, txn.stamp).read_by > txn.stamp:
                return "abort"
            versions = self._versions[key]
            versions.insert(bisect_left(versions, txn.stamp, key=lambda each: each.place), Version(txn.stamp, value, False))
        txn.wrote[key] = value
        return "ok"

    def commit(self, txn: Transaction) -> Answer:
        """Make the writes last, or abort (occ only)."""
        if self.protocol == "occ" and any(self._below(key, txn.stamp).place != place for key, place in txn.seen.items()):
            return "abort"
        place = txn.stamp if self.protocol.startswith("mv") else len(self.history) + 1
        if self._log:
            self._log.write(f"{place} {txn.number} {txn.wrote}\n")
            self._log.flush()
        for key, value in txn.wrote.items():
            if self.protocol.startswith("mv"):
                version = self._below(key, txn.stamp + 1)
                version.value, version.is_committed = value, True
            else:
                self._versions.setdefault(key, [Version(0, 0)]).append(Version(place, value))
        self.history.append(Committed(place, txn.number, txn.seen, txn.wrote))
        self._release(txn)
        return "ok"

    def abort(self, txn: Transaction) -> None:
        """Take everything back."""
        if self.protocol.startswith("mv"):
            for key in txn.wrote:
                self._versions[key] = [each for each in self._versions[key] if each.place != txn.stamp]
        self._release(txn)

    def value(self, key: int) -> int:
        """The newest committed value of a key; 0 if it was never written."""
        return next((each.value for each in reversed(self._versions.get(key, [])) if each.is_committed), 0)

    def close(self) -> None:
        """Close the log."""
        if self._log:
            self._log.close()

    def _below(self, key: int, stamp: int) -> Version:
        versions = self._versions.setdefault(key, [Version(0, 0)])
        if not self.protocol.startswith("mv"):
            return versions[-1]
        return versions[bisect_left(versions, stamp, key=lambda each: each.place) - 1]

    def _lock(self, txn: Transaction, key: int, is_exclusive: bool) -> Answer:
        holders = self._locks.setdefault(key, {})
        rivals = [stamp for stamp, exclusive in holders.items() if stamp != txn.stamp and (exclusive or is_exclusive)]
        wanted = self._wanted.setdefault(key, set())
        rivals += [stamp for stamp in wanted if stamp < txn.stamp and txn.stamp not in holders]
        if rivals and txn.stamp > min(rivals):
            return "abort"
        if rivals:
            wanted.add(txn.stamp)
            return "wait"
        wanted.discard(txn.stamp)
        holders[txn.stamp] = is_exclusive or holders.get(txn.stamp, False)
        return "ok"

    def _release(self, txn: Transaction) -> None:
        self._active.pop(txn.stamp, None)
        for key in txn.expected:
            self._writers[key].discard(txn.stamp)
        for key, holders in self._locks.items():
            holders.pop(txn.stamp, None)
            self._wanted[key].discard(txn.stamp)


def unserialisable(history: Iterable[Committed]) -> list[str]:
    """Return where a history is not what its transactions would have seen one after the other, in order of their places."""
    newest: dict[int, int] = {}
    problems = []
    for each in sorted(history, key=lambda line: line.place):
        for key, place in each.seen.items():
            if place != newest.get(key, 0):
                problems.append(
                    f"transaction {each.number} read version {place} of key {key}, the newest before it is {newest.get(key, 0)}"
                )
        newest.update(dict.fromkeys(each.wrote, each.place))
    return problems
