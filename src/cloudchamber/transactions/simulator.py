"""The verified world: takes an order and nothing else, checks it, and computes every figure itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .model import APART, Batch, BatchSpec, Model, conflicts, least_gaps, starts_of


@dataclass(frozen=True, eq=False)
class Schedule:
    """What became of an order.

    Parameters
    ----------
    order : tuple of int
    start, end : ndarray
        First slot and slot after the last, by transaction.
    restarts : int
        Runs thrown away (model occ).
    """

    order: tuple[int, ...]
    start: np.ndarray
    end: np.ndarray
    restarts: int = 0

    @property
    def makespan(self) -> int:
        """Slots from the first start to the last end."""
        return int(self.end.max()) if len(self.end) else 0


class Simulator:
    """Runs one batch.

    Parameters
    ----------
    batch : Batch
    spec : BatchSpec

    Examples
    --------
    >>> from .model import batch_of
    >>> world = Simulator(batch_of(["w-1 *", "r-1 *"]), BatchSpec(budget=100))
    >>> world.schedule((1, 0)).makespan
    3
    >>> world.problems((1, 1))
    'the order names transaction 1 twice; name each of the 2 once.'
    """

    def __init__(self, batch: Batch, spec: BatchSpec) -> None:
        self.batch = batch
        self.spec = spec

    def ask(self, policy: Any, rng: np.random.Generator) -> Any:
        """Return what a policy answers; it is given copies, so that nothing it does to them reaches this world."""
        policy.reset(self.spec, rng)
        mine = self.batch
        return policy.order(Batch(*(each.copy() for each in (mine.kind, mine.key, mine.position, mine.offsets, mine.length))))

    def problems(self, order: Any) -> str:
        """Return what is wrong with an order, or an empty text."""
        n = len(self.batch)
        if type(order) not in (tuple, list):
            return f"the order must be a tuple of whole numbers, got {type(order).__name__}."
        for each in order:
            if type(each) is not int:
                return f"the order must hold whole numbers, got {type(each).__name__} {each!r:.40}."
            if not 0 <= each < n:
                return f"the order names transaction {each}; there are 0 to {n - 1}."
        if len(set(order)) < len(order):
            twice = next(each for i, each in enumerate(order) if each in order[:i])
            return f"the order names transaction {twice} twice; name each of the {n} once."
        if len(order) < n:
            missing = sorted(set(range(n)) - set(order))
            return f"the order leaves out {len(missing)} of {n} transactions, {missing[0]} among them."
        return ""

    def schedule(self, order: tuple[int, ...]) -> Schedule:
        """Return when each transaction runs, for a valid order."""
        model: Model = self.spec.model
        start = starts_of(self.batch, order, model)
        restarts = int((start // self.batch.length).sum()) if model == "occ" and len(start) else 0
        return Schedule(tuple(order), start, start + self.batch.length, restarts)


def waited_for(world: Simulator, schedule: Schedule) -> list[tuple[int, int | None]]:
    """Return the chain that made the last transaction late, first to last: each transaction and the key it waited for.

    The key is None for the first, which waited for nobody.
    """
    batch, start, is_occ = world.batch, schedule.start, world.spec.model == "occ"
    gaps = np.where(conflicts(batch), batch.length[:, None], APART) if is_occ else least_gaps(batch, world.spec.model)
    place = np.argsort(schedule.order)
    at = int(np.argmax(schedule.end))
    chain: list[tuple[int, int | None]] = []
    while True:
        free = start + gaps[:, at]  # when each transaction before it would have let it start
        holds = (place < place[at]) & (gaps[:, at] != APART) & ((free <= start[at]) if is_occ else (free == start[at]))
        if start[at] == 0 or not holds.any():
            return [(at, None), *chain]
        cause = int(np.flatnonzero(holds)[np.argmax(free[holds])])
        chain.insert(0, (at, _shared_key(batch, cause, at)))
        at = cause


def _shared_key(batch: Batch, a: int, b: int) -> int:
    """The last key of a on which it conflicts with b."""
    touched = {key for _, key, _ in batch.accesses(b)}
    written = {key for kind, key, _ in batch.accesses(b) if kind == "w"}
    return [key for kind, key, _ in batch.accesses(a) if key in written or (kind == "w" and key in touched)][-1]
