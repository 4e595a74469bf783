"""Everything a run has: one SQLite file, written ahead, so that a told source is on disk before ``tell`` returns.

Tables: ``run`` (settings, hashes, verdict), ``task`` (with its lease), ``candidate``, ``trial`` (once per candidate, verifier, workload and
seed), ``spend`` (reserved before a call, settled after), ``event``. No table holds a key, a prompt's secret or a hidden trial's feedback.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from cloudchamber.core.errors import ChamberError, InputError

from .model import Scored, Spend
from .trials import Trial

VERSION = 1
SCHEMA = """
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE task (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, proposer TEXT NOT NULL, parents TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE lease (task INTEGER PRIMARY KEY REFERENCES task, until_s REAL NOT NULL);
CREATE TABLE candidate (
    number INTEGER PRIMARY KEY, task INTEGER UNIQUE REFERENCES task, source TEXT NOT NULL, identity TEXT NOT NULL,
    skeleton TEXT NOT NULL, parents TEXT NOT NULL, proposer TEXT NOT NULL, note TEXT NOT NULL, status TEXT NOT NULL,
    stage INTEGER NOT NULL DEFAULT 0, score REAL, scores TEXT NOT NULL DEFAULT '{}', behaviour TEXT NOT NULL DEFAULT '[]', objective REAL,
    validation REAL, trace TEXT NOT NULL DEFAULT '', feedback TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '');
CREATE INDEX by_identity ON candidate (identity);
CREATE INDEX by_skeleton ON candidate (skeleton);
CREATE INDEX by_status ON candidate (status);
CREATE TABLE trial (
    candidate INTEGER NOT NULL REFERENCES candidate, verifier TEXT NOT NULL, split TEXT NOT NULL, workload TEXT NOT NULL,
    seed INTEGER NOT NULL, metrics TEXT NOT NULL, bound REAL, reason TEXT NOT NULL, feedback TEXT NOT NULL, actions TEXT NOT NULL,
    questions INTEGER NOT NULL,
    UNIQUE (candidate, verifier, split, workload, seed));
CREATE TABLE spend (id INTEGER PRIMARY KEY, task INTEGER, tokens INTEGER NOT NULL, usd REAL NOT NULL, is_settled INTEGER NOT NULL);
CREATE TABLE event (id INTEGER PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
"""
TABLES = frozenset({"run", "task", "candidate", "trial", "spend", "event"})  # that every version has
COLUMNS = (
    "number", "source", "parents", "proposer", "note", "status", "stage", "score", "scores", "behaviour", "objective", "validation",
    "trace", "feedback", "reason",
)  # fmt: skip


class StoreFault(ChamberError, OSError):
    """The file of a run cannot be read or written."""

    def __str__(self) -> str:
        return str(self.args[0])


class Store:
    """The file of a run. One process writes; any number may read.

    Parameters
    ----------
    path : path-like or None
        None keeps it in memory.
    is_reader : bool
        Open for reading only, beside a run in progress.

    Raises
    ------
    InputError
        If it is not a run's file, is of another version, or another process is writing to it. It is left as it is then.
    StoreFault
        From any method, if the file is damaged or its disk fails.
    """

    def __init__(self, path: str | Path | None, *, is_reader: bool = False) -> None:
        self.path = Path(path) if path is not None else None
        self._lock: IO[str] | None = None
        if self.path is None:
            self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        else:
            check_file(self.path, is_reader=is_reader)  # before anything is written, the lock included
            self._db = self._reading(self.path) if is_reader else self._writing(self.path)
        try:
            self._open(is_reader)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _reading(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)

    def _writing(self, path: Path) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._lock = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise InputError(f"another process is writing to {path}; end it first, or give another --store.") from None
        return sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)

    def _open(self, is_reader: bool) -> None:
        is_new = self.path is None or _is_empty(self._db, self.path)
        if not is_reader:
            self._ask("PRAGMA journal_mode = WAL")
            self._ask("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut may lose the last moments, never the file
            self._ask("PRAGMA cache_size = -65536")  # 64 MB: the indexes of a long run are looked up in memory
            if is_new:
                self._create()
        elif is_new:
            raise InputError(f"{self.path} is not the file of a run; `chamber evolve STUDY --store {self.path}` starts one.")

    def _create(self) -> None:
        try:
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except sqlite3.DatabaseError as error:
            raise self._fault(error) from None

    def _ask(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a statement.

        Raises
        ------
        StoreFault
        """
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._fault(error) from None

    def _fault(self, error: Exception) -> Exception:
        """What to raise for an error of the file; one of ours stays what it is."""
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
            return error
        if isinstance(error, sqlite3.OperationalError) and "decode" not in str(error):
            return StoreFault(f"{self.path} cannot be used now: {error}. See to its disk and its permissions, then resume the run.")
        return StoreFault(f"{self.path} is damaged: {error}. Put a copy of it in its place, or start a new run with another --store.")

    def _loaded(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, TypeError) as error:
            raise self._fault(error) from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; within another it is a part of that."""
        if self._db.in_transaction:
            yield
            return
        self._ask("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # some faults have ended it already
                self._ask("ROLLBACK")
            raise
        self._ask("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def __getitem__(self, key: str) -> Any:
        rows = self._ask("SELECT value FROM run WHERE key = ?", (key,))
        return self._loaded(rows[0][0]) if rows else None

    def __setitem__(self, key: str, value: Any) -> None:
        self._ask("INSERT OR REPLACE INTO run VALUES (?, ?)", (key, json.dumps(value)))

    def event(self, kind: str, text: str = "") -> None:
        """Write a line of the log."""
        self._ask("INSERT INTO event (at_s, kind, text) VALUES (?, ?, ?)", (time.time(), kind, text[:2000]))

    def events(self, after: int = 0, limit: int = 200) -> list[tuple[int, float, str, str]]:
        """Lines of the log after one: id, time, kind, text."""
        return self._ask("SELECT id, at_s, kind, text FROM event WHERE id > ? ORDER BY id LIMIT ?", (after, limit))

    def silences(self) -> Mapping[str, tuple[int, str]]:
        """Of every proposer that could not work: how often, and what it said the last time."""
        found: dict[str, tuple[int, str]] = {}
        for (text,) in self._ask("SELECT text FROM event WHERE kind = 'unavailable' ORDER BY id"):
            name, _, why = text.partition(": ")
            found[name] = (found.get(name, (0, ""))[0] + 1, why)
        return found

    # tasks

    def add_task(self, number: int, identifier: str, proposer: str, parents: tuple[int, ...], lease_until_s: float | None) -> None:
        """Note an open task."""
        self._ask("INSERT OR REPLACE INTO task VALUES (?, ?, ?, ?, 'open')", (number, identifier, proposer, json.dumps(parents)))
        if lease_until_s is not None:
            self._ask("INSERT OR REPLACE INTO lease VALUES (?, ?)", (number, lease_until_s))

    def end_task(self, number: int) -> None:
        """Note that a task came to nothing."""
        self._ask("UPDATE task SET state = 'idle' WHERE number = ?", (number,))

    def task(self, identifier: str) -> tuple[int, str, tuple[int, ...], str] | None:
        """Number, proposer, parents and state of a task."""
        rows = self._ask("SELECT number, proposer, parents, state FROM task WHERE id = ?", (identifier,))
        return (rows[0][0], rows[0][1], tuple(self._loaded(rows[0][2])), rows[0][3]) if rows else None

    def expired(self, now_s: float) -> list[tuple[int, str, tuple[int, ...]]]:
        """Number, id and parents of open tasks whose lease has run out."""
        rows = self._ask(
            "SELECT number, id, parents FROM lease JOIN task ON number = lease.task WHERE state = 'open' AND until_s <= ? ORDER BY number",
            (now_s,),
        )
        return [(number, identifier, tuple(self._loaded(parents))) for number, identifier, parents in rows]

    def open_tasks(self) -> list[tuple[int, str, str, float | None]]:
        """Number, id, proposer and lease of tasks not told yet."""
        return self._ask(
            "SELECT task.number, task.id, task.proposer, lease.until_s FROM task LEFT JOIN lease ON lease.task = task.number"
            " WHERE task.state = 'open' ORDER BY task.number"
        )

    def last_task(self) -> int:
        """The highest task number."""
        return int(self._ask("SELECT COALESCE(MAX(number), 0) FROM task")[0][0])

    # candidates

    def tell(self, task: int | None, candidate: Scored, identity: str, skeleton: str) -> None:
        """Put a told source on disk, before anything is done with it."""
        self._ask(
            "INSERT INTO candidate (number, task, source, identity, skeleton, parents, proposer, note, status, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                candidate.number, task, candidate.source, identity, skeleton, json.dumps(candidate.parents), candidate.proposer,
                candidate.note, candidate.status, candidate.reason,
            ),
        )  # fmt: skip
        if task is not None:
            self._ask("UPDATE task SET state = 'told' WHERE number = ?", (task,))
            self._ask("DELETE FROM lease WHERE task = ?", (task,))

    def score(self, candidate: Scored, verifier: str, trials: list[Trial]) -> None:
        """Put what became of a candidate on disk, with its trials."""
        self._ask(
            "UPDATE candidate SET status = ?, stage = ?, score = ?, scores = ?, behaviour = ?, objective = ?, validation = ?, trace = ?,"
            " feedback = ?, reason = ? WHERE number = ?",
            (
                candidate.status, candidate.stage, candidate.score, json.dumps(dict(candidate.scores)), json.dumps(candidate.behaviour),
                candidate.objective, candidate.validation, candidate.trace, candidate.feedback, candidate.reason, candidate.number,
            ),
        )  # fmt: skip
        self.add_trials(candidate.number, verifier, trials)

    def add_trials(self, number: int, verifier: str, trials: list[Trial]) -> None:
        """Put trials on disk; one that is there already stays as it is."""
        rows = [
            (
                number, verifier, each.split, each.workload, each.seed, json.dumps(each.metrics), each.bound, each.reason,
                each.feedback if each.split in ("smoke", "training") else "", each.actions, each.questions,
            )
            for each in trials
        ]  # fmt: skip
        try:
            self._db.executemany("INSERT OR IGNORE INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            raise self._fault(error) from None

    def trials(self, number: int, split: str | None = None) -> list[Trial]:
        """The trials of a candidate."""
        rows = self._ask(
            "SELECT split, workload, seed, metrics, bound, reason, feedback, actions, questions FROM trial WHERE candidate = ?"
            " AND (? IS NULL OR split = ?) ORDER BY rowid",
            (number, split, split),
        )
        return [Trial(row[0], row[1], row[2], self._loaded(row[3]), *row[4:]) for row in rows]

    def candidates(self, where: str = "1", values: tuple[Any, ...] = (), order: str = "number", limit: int = -1) -> list[Scored]:
        """Candidates that meet an SQL condition of this package's own making."""
        rows = self._ask(f"SELECT {', '.join(COLUMNS)} FROM candidate WHERE {where} ORDER BY {order} LIMIT {int(limit)}", values)
        return [self._scored(dict(zip(COLUMNS, row, strict=True))) for row in rows]

    def candidate(self, number: int) -> Scored | None:
        """One candidate."""
        found = self.candidates("number = ?", (number,))
        return found[0] if found else None

    def of_skeleton(self, skeleton: str, after: int = 0) -> list[Scored]:
        """Candidates that differ by numbers only, told after one."""
        return self.candidates("skeleton = ? AND number > ?", (skeleton, after))

    def knows(self, identity: str) -> bool:
        """Whether a source with that identity was told before."""
        return self._ask("SELECT 1 FROM candidate WHERE identity = ? LIMIT 1", (identity,)) != []

    def counts(self) -> Mapping[str, int]:
        """How many candidates of each status."""
        return dict(self._ask("SELECT status, COUNT(*) FROM candidate GROUP BY status"))

    def evaluations(self) -> int:
        """Told candidates that left (or, told and not yet scored, will leave) stage 0, the starting policies apart."""
        row = self._ask("SELECT COUNT(*) FROM candidate WHERE status != 'rejected' AND task IS NOT NULL")[0]
        return int(row[0])

    # spend

    def reserve(self, task: int | None, spend: Spend) -> int:
        """Count a cost before it arises, so that a crash never under-counts; returns what to settle."""
        self._ask("INSERT INTO spend (task, tokens, usd, is_settled) VALUES (?, ?, ?, 0)", (task, spend.tokens, spend.usd))
        return int(self._ask("SELECT last_insert_rowid()")[0][0])

    def settle(self, identifier: int, spend: Spend) -> None:
        """Replace a reservation by what was really spent."""
        self._ask("UPDATE spend SET tokens = ?, usd = ?, is_settled = 1 WHERE id = ?", (spend.tokens, spend.usd, identifier))

    def spent(self) -> Spend:
        """Everything spent or reserved."""
        row = self._ask("SELECT COALESCE(SUM(tokens), 0), COALESCE(SUM(usd), 0.0) FROM spend")[0]
        return Spend(int(row[0]), float(row[1]))

    def dump(self) -> str:
        """Everything but times, as text: two runs that did the same are equal."""
        found: dict[str, Any] = {}
        for table in ("task", "candidate", "trial", "spend"):
            found[table] = self._ask(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5")
        return json.dumps(found)

    def _scored(self, row: dict[str, Any]) -> Scored:
        """A candidate as its row keeps it."""
        lists = {name: tuple(self._loaded(row[name])) for name in ("parents", "behaviour")}
        return Scored(**(row | lists | {"scores": self._loaded(row["scores"])}))


def check_file(path: Path, *, is_reader: bool) -> None:
    """Refuse a path that cannot be the file of a run, without touching it or leaving anything beside it.

    Raises
    ------
    InputError
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file of a run, for example --store {path / 'run.db'}.")
    if not path.exists() and not is_reader:
        return
    if not path.is_file():
        raise InputError(f"there is no run at {path}; `chamber evolve STUDY --store {path}` starts one.")
    if not is_reader and not os.access(path, os.W_OK):
        raise InputError(f"{path} cannot be written; change its permissions, or give another --store.")
    written = path.with_name(path.name + "-wal")
    # what is not in use is read without a lock or a file beside it
    options = "mode=ro" if written.exists() and written.stat().st_size else "mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, timeout=30)) as there:
        _is_empty(there, path)


def _is_empty(db: sqlite3.Connection, path: Path) -> bool:
    """Whether there is nothing in a file yet; raises if there is something else than a run."""
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master").fetchall()}
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is not the file of a run, or is damaged ({error}); give another --store.") from None
    if not tables and version == 0:
        return True
    if not tables >= TABLES:
        raise InputError(f"{path} is not the file of a run, and is left as it is; give another --store.")
    if version != VERSION:
        raise InputError(f"{path} is of version {version} of the store, this is {VERSION}; finish it with the release that began it.")
    return False


def settings_of(store: Store) -> Mapping[str, Any]:
    """The settings a run was started with.

    Raises
    ------
    InputError
        If the file holds no run.
    """
    found = store["settings"]
    if found is None:
        raise InputError(f"{store.path} holds no run yet; `chamber evolve STUDY --store {store.path}` starts one.")
    return dict(found)
