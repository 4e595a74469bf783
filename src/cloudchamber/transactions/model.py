"""The nouns of transaction scheduling: batches, what a scheduler is told, and the makespan model it may ask.

Time is cut into slots. A transaction is a row of slots that it runs through without a gap: each reads a key, writes a key, or
works without shared data. An order is a serial order: whoever comes later in it waits for those before it wherever they conflict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.jit import njit
from cloudchamber.core.messages import Message

Model = Literal["mv", "2pl", "occ"]
MODELS: tuple[Model, ...] = ("mv", "2pl", "occ")
READ, WRITE = 0, 1
APART = -(2**30)  # the least gap of two transactions that do not conflict


class Batch(Message, frozen=True):
    """Transactions that wait to be run; they are named 0 to ``len(batch) - 1``, in order of arrival.

    Their accesses lie one after the other: transaction t has those from ``offsets[t]`` to ``offsets[t + 1]``.

    Parameters
    ----------
    kind : ndarray of int64
        0 reads, 1 writes.
    key : ndarray of int64
        Keys are numbered from 0 without gaps.
    position : ndarray of int64
        Slot of the access, counted from the transaction's first.
    offsets : ndarray of int64, one more than transactions
    length : ndarray of int64
        Slots of each transaction, those without an access included.

    Examples
    --------
    >>> batch = batch_of(["r-7 w-9", "* w-7 *"])
    >>> len(batch), batch.keys, batch.accesses(1)
    (2, 2, [('w', 0, 1)])
    """

    kind: np.ndarray
    key: np.ndarray
    position: np.ndarray
    offsets: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.length)

    @property
    def keys(self) -> int:
        """Number of keys."""
        return int(self.key.max()) + 1 if len(self.key) else 0

    def accesses(self, transaction: int) -> list[tuple[str, int, int]]:
        """Return the (``r`` or ``w``, key, position) of a transaction, in order."""
        part = slice(int(self.offsets[transaction]), int(self.offsets[transaction + 1]))
        kinds = ["rw"[kind] for kind in self.kind[part]]
        return list(zip(kinds, self.key[part].tolist(), self.position[part].tolist(), strict=True))


class BatchSpec(Message, frozen=True):
    """What a scheduler knows before the batch.

    Parameters
    ----------
    budget : int
        Placements it may compute: asking where one transaction would start, or placing it, is one.
    model : {"mv", "2pl", "occ"}
        What makes a transaction wait. mv: the slot of a conflicting access. 2pl: the end of the transaction that holds the lock.
        occ: it restarts at its own end as long as a conflicting transaction ran at the same time.
    """

    budget: int
    model: Model = "mv"


class Scheduler(Protocol):
    """Decides the serial order of a batch."""

    def reset(self, spec: BatchSpec, rng: np.random.Generator) -> None:
        """Forget everything and learn the static facts of the next batch."""

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return every transaction of the batch once, first to last."""


def batch_of(transactions: Iterable[str]) -> Batch:
    """Return the batch of transactions written as slots: ``r-KEY``, ``w-KEY`` or ``*``, separated by spaces.

    Raises
    ------
    InputError
        Naming the transaction and the slot that is wrong.
    """
    names: dict[int, int] = {}
    rows, lengths, offsets = [], [], [0]
    for number, text in enumerate(transactions):
        slots = text.split() if isinstance(text, str) else []
        if not slots:
            raise InputError(f"transaction {number} must be slots such as 'r-3 w-4 *', got {text!r}.")
        for position, slot in enumerate(slots):
            if slot == "*":
                continue
            found = re.fullmatch(r"([rw])-(\d+)", slot, re.ASCII)
            if not found:
                raise InputError(f"transaction {number}, slot {position}: {slot!r} is not r-KEY, w-KEY or * (KEY: a whole number from 0).")
            rows.append((int(found[1] == "w"), names.setdefault(int(found[2]), len(names)), position))
        lengths.append(len(slots))
        offsets.append(len(rows))
    kind, key, place = np.array(rows, dtype=np.int64).reshape(-1, 3).T.copy()
    return Batch(kind, key, place, np.array(offsets, dtype=np.int64), np.array(lengths, dtype=np.int64))


class Timeline:
    """A schedule that grows by one transaction at a time, under the rules by which the world will judge the order.

    Parameters
    ----------
    batch : Batch
    model : {"mv", "2pl", "occ"}

    Examples
    --------
    >>> line = Timeline(batch_of(["w-1 *", "r-1 *"]))
    >>> line.place(0), line.place(1), line.makespan
    (0, 1, 3)
    """

    def __init__(self, batch: Batch, model: Model = "mv") -> None:
        self.batch = batch
        self.makespan = 0
        self._rules = rules_of(batch, model)
        self._state = new_state(batch)

    def starts(self, candidates: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the slot at which each candidate would start if it were placed now."""
        found: np.ndarray = _starts(np.asarray(candidates, dtype=np.int64), self._rules, self._state)
        return found

    def place(self, transaction: int) -> int:
        """Append a transaction and return its start."""
        start = int(place(transaction, self._rules, self._state))
        self.makespan = max(self.makespan, start + int(self.batch.length[transaction]))
        return start


def starts_of(batch: Batch, order: Iterable[int] | np.ndarray, model: Model = "mv") -> np.ndarray:
    """Return the start slot of every transaction, by its number, when the batch runs in this order."""
    state = new_state(batch)
    run(_array(order), rules_of(batch, model), state)
    return state[2]


def makespan(batch: Batch, order: Iterable[int] | np.ndarray, model: Model = "mv") -> int:
    """Return the slots from the first start to the last end.

    Examples
    --------
    >>> batch = batch_of(["* w-1", "w-1 *"])
    >>> makespan(batch, [0, 1]), makespan(batch, [1, 0])
    (4, 2)
    """
    return int(run(_array(order), rules_of(batch, model), new_state(batch)))


def _array(order: Iterable[int] | np.ndarray) -> np.ndarray:
    return order.astype(np.int64) if isinstance(order, np.ndarray) else np.array(list(order), dtype=np.int64)


Rules = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, np.ndarray]
State = tuple[np.ndarray, np.ndarray, np.ndarray]


def rules_of(batch: Batch, model: Model) -> Rules:
    """Return the batch and the model as the compiled kernels take them.

    Raises
    ------
    InputError
        For an unknown model.
    """
    if model not in MODELS:
        raise InputError(f"model must be one of {', '.join(MODELS)}, got {model!r}.")
    pairs = conflicts(batch) if model == "occ" else np.zeros((0, 0), dtype=np.bool_)
    return batch.kind, batch.key, batch.position, batch.offsets, batch.length, MODELS.index(model), pairs


def new_state(batch: Batch) -> State:
    """Return an empty schedule: per key the first slots a read and a write may take, per transaction its start (-1: not placed)."""
    free = np.zeros((2, batch.keys), dtype=np.int64)
    return free[0], free[1], np.full(len(batch), -1, dtype=np.int64)


def conflicts(batch: Batch) -> np.ndarray:
    """Return for every pair of transactions whether they share a key that at least one of them writes."""
    touched = np.zeros((len(batch), batch.keys), dtype=np.float32)
    written = np.zeros_like(touched)
    owner = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
    touched[owner, batch.key] = 1
    written[owner[batch.kind == WRITE], batch.key[batch.kind == WRITE]] = 1
    shared = written @ touched.T
    found: np.ndarray = (shared + shared.T) > 0
    np.fill_diagonal(found, False)
    return found


def least_gaps(batch: Batch, model: Model = "mv") -> np.ndarray:
    """Return for every pair (a, b) the least slots from a's start to b's if a comes first; ``APART`` where they do not conflict.

    A pair that conflicts does so in both orders, but the gaps differ, and may be below zero: who comes later in the order may start
    earlier in time. Holds for mv and 2pl.
    """
    found: np.ndarray = _gaps(rules_of(batch, model))
    return found


@njit
def start_of(t, rules, state):  # type: ignore[no-untyped-def]  # pragma: no cover
    """First slot at which a transaction may start after all that were placed."""
    kind, key, position, offsets, length, model, pairs = rules
    read_free, write_free, begin = state
    start = 0
    if model < 2:
        for i in range(offsets[t], offsets[t + 1]):
            free = write_free[key[i]] if kind[i] else read_free[key[i]]
            start = max(start, free - position[i])
        return start
    again = True
    while again:
        again = False
        for u in range(len(length)):
            if begin[u] >= 0 and pairs[t, u] and begin[u] < start + length[t] and start < begin[u] + length[u]:
                start += length[t]
                again = True
                break
    return start


@njit
def place(t, rules, state):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Place a transaction as early as it may start, and return that slot."""
    kind, key, position, offsets, length, model, _ = rules
    read_free, write_free, begin = state
    start = start_of(t, rules, state)
    begin[t] = start
    if model < 2:
        for i in range(offsets[t], offsets[t + 1]):
            free = start + (position[i] + 1 if model == 0 else length[t])  # 2pl keeps the lock to the end
            write_free[key[i]] = max(write_free[key[i]], free)
            if kind[i]:
                read_free[key[i]] = max(read_free[key[i]], free)
    return start


@njit
def run(order, rules, state):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Place transactions in order and return the makespan."""
    end = 0
    for t in order:
        end = max(end, place(t, rules, state) + rules[4][t])
    return end


@njit
def _starts(candidates, rules, state):  # type: ignore[no-untyped-def]  # pragma: no cover
    found = np.empty(len(candidates), dtype=np.int64)
    for i in range(len(candidates)):
        found[i] = start_of(candidates[i], rules, state)
    return found


@njit
def _gaps(rules):  # type: ignore[no-untyped-def]  # pragma: no cover
    kind, key, position, offsets, length, model, _ = rules
    found = np.full((len(length), len(length)), APART)
    for a in range(len(length)):
        for b in range(len(length)):
            if a == b:
                continue
            for i in range(offsets[a], offsets[a + 1]):
                free = position[i] + 1 if model == 0 else length[a]
                for j in range(offsets[b], offsets[b + 1]):
                    if key[i] == key[j] and kind[i] + kind[j] > 0:
                        found[a, b] = max(found[a, b], free - position[j])
    return found
