"""Everything a run has: one SQLite file, written ahead, so that a told source is on disk before ``tell`` returns.

Tables: ``run`` (settings, hashes, verdict), ``task`` (with its lease), ``candidate``, ``trial`` (once per candidate, verifier, workload and
seed), ``spend`` (reserved before a call, settled after), ``event``. No table holds a key, a prompt's secret or a hidden trial's feedback.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudchamber.core.errors import InputError

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
COLUMNS = (
    "number", "source", "parents", "proposer", "note", "status", "stage", "score", "scores", "behaviour", "objective", "validation",
    "trace", "feedback", "reason",
)  # fmt: skip


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
        If it is not a run's file, is of another version, or another process is writing to it.
    """

    def __init__(self, path: str | Path | None, *, is_reader: bool = False) -> None:
        self.path = Path(path) if path is not None else None
        self._lock = None
        if self.path is None:
            self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        elif is_reader:
            if not self.path.is_file():
                raise InputError(f"there is no run at {self.path}; `chamber evolve STUDY --store {self.path}` starts one.")
            self._db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self.path.with_name(self.path.name + ".lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"another process is writing to {self.path}; end it first, or give another --store.") from None
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=30, check_same_thread=False)
        try:
            self._open(is_reader)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path} is not the file of a run: {error}.") from None

    def _open(self, is_reader: bool) -> None:
        if not is_reader:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut may lose the last moments, never the file
            self._db.execute("PRAGMA cache_size = -65536")  # 64 MB: the indexes of a long run are looked up in memory
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version == 0 and not is_reader:
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise InputError(
                f"{self.path} is of version {version} of the store, this is {VERSION}; finish it with the release that began it."
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; within another it is a part of that."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def __getitem__(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def __setitem__(self, key: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (key, json.dumps(value)))

    def event(self, kind: str, text: str = "") -> None:
        """Write a line of the log."""
        self._db.execute("INSERT INTO event (at_s, kind, text) VALUES (?, ?, ?)", (time.time(), kind, text[:2000]))

    def events(self, after: int = 0, limit: int = 200) -> list[tuple[int, float, str, str]]:
        """Lines of the log after one: id, time, kind, text."""
        return self._db.execute("SELECT id, at_s, kind, text FROM event WHERE id > ? ORDER BY id LIMIT ?", (after, limit)).fetchall()

    # tasks

    def add_task(self, number: int, identifier: str, proposer: str, parents: tuple[int, ...], lease_until_s: float | None) -> None:
        """Note an open task."""
        self._db.execute("INSERT OR REPLACE INTO task VALUES (?, ?, ?, ?, 'open')", (number, identifier, proposer, json.dumps(parents)))
        if lease_until_s is not None:
            self._db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?)", (number, lease_until_s))

    def end_task(self, number: int) -> None:
        """Note that a task came to nothing."""
        self._db.execute("UPDATE task SET state = 'idle' WHERE number = ?", (number,))

    def task(self, identifier: str) -> tuple[int, str, tuple[int, ...], str] | None:
        """Number, proposer, parents and state of a task."""
        row = self._db.execute("SELECT number, proposer, parents, state FROM task WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else (row[0], row[1], tuple(json.loads(row[2])), row[3])

    def open_tasks(self) -> list[tuple[int, str, str, float | None]]:
        """Number, id, proposer and lease of tasks not told yet."""
        return self._db.execute(
            "SELECT task.number, task.id, task.proposer, lease.until_s FROM task LEFT JOIN lease ON lease.task = task.number"
            " WHERE task.state = 'open' ORDER BY task.number"
        ).fetchall()

    def last_task(self) -> int:
        """The highest task number."""
        return int(self._db.execute("SELECT COALESCE(MAX(number), 0) FROM task").fetchone()[0])

    # candidates

    def tell(self, task: int | None, candidate: Scored, identity: str, skeleton: str) -> None:
        """Put a told source on disk, before anything is done with it."""
        self._db.execute(
            "INSERT INTO candidate (number, task, source, identity, skeleton, parents, proposer, note, status, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                candidate.number, task, candidate.source, identity, skeleton, json.dumps(candidate.parents), candidate.proposer,
                candidate.note, candidate.status, candidate.reason,
            ),
        )  # fmt: skip
        if task is not None:
            self._db.execute("UPDATE task SET state = 'told' WHERE number = ?", (task,))
            self._db.execute("DELETE FROM lease WHERE task = ?", (task,))

    def score(self, candidate: Scored, verifier: str, trials: list[Trial]) -> None:
        """Put what became of a candidate on disk, with its trials."""
        self._db.execute(
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
        self._db.executemany(
            "INSERT OR IGNORE INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    number, verifier, each.split, each.workload, each.seed, json.dumps(each.metrics), each.bound, each.reason,
                    each.feedback if each.split in ("smoke", "training") else "", each.actions, each.questions,
                )
                for each in trials
            ],
        )  # fmt: skip

    def trials(self, number: int, split: str | None = None) -> list[Trial]:
        """The trials of a candidate."""
        rows = self._db.execute(
            "SELECT split, workload, seed, metrics, bound, reason, feedback, actions, questions FROM trial WHERE candidate = ?"
            " AND (? IS NULL OR split = ?) ORDER BY rowid",
            (number, split, split),
        )
        return [Trial(row[0], row[1], row[2], json.loads(row[3]), *row[4:]) for row in rows]

    def candidates(self, where: str = "1", values: tuple[Any, ...] = (), order: str = "number", limit: int = -1) -> list[Scored]:
        """Candidates that meet an SQL condition of this package's own making."""
        rows = self._db.execute(f"SELECT {', '.join(COLUMNS)} FROM candidate WHERE {where} ORDER BY {order} LIMIT {int(limit)}", values)
        return [_scored(dict(zip(COLUMNS, row, strict=True))) for row in rows]

    def candidate(self, number: int) -> Scored | None:
        """One candidate."""
        found = self.candidates("number = ?", (number,))
        return found[0] if found else None

    def of_skeleton(self, skeleton: str, after: int = 0) -> list[Scored]:
        """Candidates that differ by numbers only, told after one."""
        return self.candidates("skeleton = ? AND number > ?", (skeleton, after))

    def knows(self, identity: str) -> bool:
        """Whether a source with that identity was told before."""
        return self._db.execute("SELECT 1 FROM candidate WHERE identity = ? LIMIT 1", (identity,)).fetchone() is not None

    def counts(self) -> Mapping[str, int]:
        """How many candidates of each status."""
        return dict(self._db.execute("SELECT status, COUNT(*) FROM candidate GROUP BY status").fetchall())

    def evaluations(self) -> int:
        """Told candidates that left (or, told and not yet scored, will leave) stage 0, the starting policies apart."""
        row = self._db.execute("SELECT COUNT(*) FROM candidate WHERE status != 'rejected' AND task IS NOT NULL").fetchone()
        return int(row[0])

    # spend

    def reserve(self, task: int | None, spend: Spend) -> int:
        """Count a cost before it arises, so that a crash never under-counts; returns what to settle."""
        return int(
            self._db.execute(
                "INSERT INTO spend (task, tokens, usd, is_settled) VALUES (?, ?, ?, 0)", (task, spend.tokens, spend.usd)
            ).lastrowid
            or 0
        )

    def settle(self, identifier: int, spend: Spend) -> None:
        """Replace a reservation by what was really spent."""
        self._db.execute("UPDATE spend SET tokens = ?, usd = ?, is_settled = 1 WHERE id = ?", (spend.tokens, spend.usd, identifier))

    def spent(self) -> Spend:
        """Everything spent or reserved."""
        row = self._db.execute("SELECT COALESCE(SUM(tokens), 0), COALESCE(SUM(usd), 0.0) FROM spend").fetchone()
        return Spend(int(row[0]), float(row[1]))

    def dump(self) -> str:
        """Everything but times, as text: two runs that did the same are equal."""
        found: dict[str, Any] = {}
        for table in ("task", "candidate", "trial", "spend"):
            found[table] = self._db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5").fetchall()
        return json.dumps(found)


def settings_of(store: Store) -> Mapping[str, Any]:
    """The settings a run was started with.

    Raises
    ------
    InputError
        If the file holds no run.
    """
    found = store["settings"]
    if found is None:
        raise InputError(f"{store.path} holds no run.")
    return dict(found)


def _scored(row: dict[str, Any]) -> Scored:
    """A candidate as its row keeps it."""
    lists = {name: tuple(json.loads(row[name])) for name in ("parents", "behaviour")}
    return Scored(**(row | lists | {"scores": json.loads(row["scores"])}))
