"""What no order can beat: the exact optimum of small batches, and bounds on all others."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .model import WRITE, Batch, BatchSpec, Model, conflicts, least_gaps
from .policies.cpsat_exact import CPSATExact

EXACT_UP_TO = 12


def optimal_order(batch: Batch, model: Model = "mv") -> tuple[int, ...] | None:
    """Return an order of least makespan, proven by CP-SAT, or None where that would take too long."""
    if model == "occ" or len(batch) > EXACT_UP_TO:
        return None
    policy = CPSATExact(EXACT_UP_TO)
    policy.reset(BatchSpec(0, model), np.random.default_rng(0))
    return policy.order(batch)


def lower_bound(batch: Batch, model: Model = "mv") -> int:
    """Return the largest of the bounds of this module."""
    return max((longest(batch), clique_bound(batch, model), *(bound for _, bound in key_bounds(batch, model))))


def simple_bound(batch: Batch) -> int:
    """The bound one writes down first, under mv: the longest transaction, or the writes of one key one after the other.

    Per key: slots before its first access, one slot per write, one if a transaction reads it without writing it, slots after its last
    access.
    """
    best = longest(batch)
    owner = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
    tail = batch.length[owner] - batch.position - 1
    for key in range(batch.keys):
        here = batch.key == key
        writes = here & (batch.kind == WRITE)
        slots = int(writes.sum()) + bool(set(owner[here]) - set(owner[writes]))
        best = max(best, int(batch.position[here].min()) + slots + int(tail[here].min()))
    return best


def longest(batch: Batch) -> int:
    """Slots of the longest transaction; 0 for an empty batch."""
    return int(batch.length.max()) if len(batch) else 0


def key_bounds(batch: Batch, model: Model = "mv") -> list[tuple[int, int]]:
    """Return for every key the least makespan of the transactions that fight over it, as (key, slots).

    Transactions that write a key hold it, one after the other, as jobs hold a machine; each has slots before (head) and after (tail).
    The optimum of that one machine, with interruptions allowed, bounds every order.
    """
    owner = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
    found = []
    for key in range(batch.keys):
        uses: dict[int, _Use] = {}
        for i in np.flatnonzero(batch.key == key).tolist():
            uses.setdefault(int(owner[i]), _Use(int(batch.length[owner[i]]))).add(int(batch.position[i]), batch.kind[i] == WRITE)
        writers = [use for use in uses.values() if use.writes]
        chain = [use.hold(model, use.first) for use in writers]
        # a reader keeps out of the way of writes only; the most obliging reader stands for all
        readers = [use.hold(model, use.first) for use in uses.values() if not use.writes]
        reader = [(min(each[0] for each in readers), min(each[1] for each in readers), min(each[2] for each in readers))] if readers else []
        mixed = [use.hold(model, min(use.writes)) for use in writers] + reader
        found.append((key, max(one_machine(chain), one_machine(mixed))))
    return found


def clique_bound(batch: Batch, model: Model = "mv") -> int:
    """Return the least makespan of a set of transactions that all conflict with each other.

    In any order neighbours of the set keep their least gap, so the gaps along the cheapest path through all of it bound every order.
    The path is relaxed to an assignment: each but the last has one successor, each but the first one predecessor. Under occ the runs
    of such a set do not overlap, so their lengths add up.
    """
    clique = _clique(conflicts(batch))
    if len(clique) < 2:
        return 0
    if model == "occ":
        return int(batch.length[clique].sum())
    from ortools.graph.python.linear_sum_assignment import SimpleLinearSumAssignment

    gaps, m = least_gaps(batch, model)[np.ix_(clique, clique)], len(clique)
    shift = int(batch.length.max())  # the solver wants costs of at least 0
    cost = np.zeros((m + 1, m + 1), dtype=np.int64)  # the last row and column stand for before the first and after the last
    cost[:m, :m], cost[:m, m] = gaps, batch.length[clique]
    rows, columns = np.nonzero(~np.eye(m + 1, dtype=bool))
    solver = SimpleLinearSumAssignment()
    solver.add_arcs_with_cost(rows, columns, cost[rows, columns] + shift)
    if solver.solve() != solver.OPTIMAL:
        raise RuntimeError("the assignment of the clique bound was not solved")
    return int(solver.optimal_cost()) - shift * (m + 1)


def _clique(pairs: np.ndarray) -> np.ndarray:
    """A set in which all conflict, grown from those that conflict most."""
    chosen: list[int] = []
    for t in np.argsort(-pairs.sum(axis=1), kind="stable").tolist():
        if pairs[t, chosen].all():
            chosen.append(t)
    return np.array(chosen, dtype=np.int64)


@dataclass
class _Use:
    """One transaction's slots on one key."""

    length: int

    def __post_init__(self) -> None:
        self.slots: list[int] = []
        self.writes: list[int] = []

    def add(self, position: int, is_write: bool) -> None:
        self.slots.append(position)
        if is_write:
            self.writes.append(position)

    @property
    def first(self) -> int:
        return min(self.slots)

    def hold(self, model: Model, since: int) -> tuple[int, int, int]:
        """Slots before it holds the key, while, and after."""
        if model == "occ":
            return 0, self.length, 0
        if model == "2pl":
            return since, self.length - since, 0
        last = max(self.writes) if self.writes else since
        return since, last - since + 1, self.length - last - 1


def one_machine(jobs: Iterable[tuple[int, int, int]]) -> int:
    """Least time to run jobs of (head, work, tail) on one machine, with interruptions: always the longest tail first.

    Examples
    --------
    >>> one_machine([(0, 2, 5), (1, 2, 0)])
    7
    """
    waiting = sorted(jobs)
    ready: list[tuple[int, int]] = []
    now, end, i = 0, 0, 0
    while i < len(waiting) or ready:
        if not ready:
            now = max(now, waiting[i][0])
        while i < len(waiting) and waiting[i][0] <= now:
            heapq.heappush(ready, (-waiting[i][2], waiting[i][1]))
            i += 1
        tail, work = heapq.heappop(ready)
        done = work if i == len(waiting) else min(work, waiting[i][0] - now)
        now += done
        if done < work:
            heapq.heappush(ready, (tail, work - done))
        else:
            end = max(end, now - tail)
    return end
