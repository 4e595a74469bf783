"""Workloads: which batches, under which makespan model, with how large a budget."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cloudchamber.core.datasets import locate
from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .data import PUBLIC, read_batch, txn_dataset
from .generators import GENERATORS, Shape
from .model import MODELS, Batch, BatchSpec, Model, batch_of
from .optimum import lower_bound, optimal_order
from .simulator import Simulator

BUDGET = 1_000_000
LARGEST = 2000  # transactions of a batch: beyond, the bound takes minutes


@dataclass(frozen=True, kw_only=True)
class TxnWorkload(Workload):
    """Batches of transactions, each to be put in order.

    Parameters
    ----------
    batches : tuple of str
        Public batches, or paths of a user's; seed s is given number s, and starts again after the last unless the set is finite.
        Empty: generated.
    kinds : tuple of str
        Generators, taken in turn by seed.
    shape : Shape
        What the generators are asked for.
    budget : int
        Placements a policy may compute.
    model : {"mv", "2pl", "occ"}
    renaming : int or None
        Draws other numbers for transactions and keys; None leaves them.
    sha256 : str
        Of a user's files: a file rewritten is another workload.
    folder : str or None
        Where the public batches lie; None: not looked for yet.
    """

    batches: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    shape: Shape = field(default_factory=Shape)
    budget: int = BUDGET
    model: Model = "mv"
    renaming: int | None = None
    sha256: str = ""
    folder: str | None = None

    @property
    def summary(self) -> str:
        """What the batches are, and the budget."""
        what = f"{', '.join(self.batches or self.kinds)}{' (generated twin)' if self._is_twin else ''}"
        size = "" if self.batches else f", {self.shape.n} transactions"
        return f"{what}{size}; model {self.model}; a budget of {self.budget:,} placements."

    @property
    def _is_twin(self) -> bool:
        return self.is_generated and bool(self.batches)

    def part(self, lo: float, hi: float) -> TxnWorkload | None:
        """The share [lo, hi) of a finite set; a generator is itself, and a single batch cannot be cut."""
        if self.is_generated:
            return self
        if not self.is_finite:
            return None
        chosen = self.batches[round(lo * len(self.batches)) : round(hi * len(self.batches))]
        return replace(self, batches=chosen, seeds=len(chosen)) if chosen else None

    def twin(self) -> TxnWorkload | None:
        """Generated batches of the same shape; a user's own have none."""
        if self.is_generated:
            return self
        if not set(self.batches) <= set(PUBLIC):
            return None
        return replace(self, is_generated=True, is_finite=False, kinds=self.batches, seeds=12)

    def renamed(self, rng: np.random.Generator) -> TxnWorkload:
        """The same batches with transactions and keys numbered anew; their order of arrival is a numbering too."""
        return replace(self, renaming=int(rng.integers(2**32)))

    def world(self, seed: int) -> Simulator:
        """Return the seed's batch, ready to be run.

        Raises
        ------
        InputError
            If a finite set has no such instance, or a batch is not usable.
        """
        return _world(self, seed)

    def bound(self, seed: int) -> tuple[int, tuple[int, ...] | None]:
        """Return a makespan that no order can beat and, where it is the least there is, an order that attains it."""
        return _bound(self, seed)


@lru_cache(maxsize=16)
def _world(workload: TxnWorkload, seed: int) -> Simulator:
    if workload.is_finite and seed >= len(workload.batches):
        count = len(workload.batches)
        raise InputError(f"workload {workload.name!r} has {count} instances, seeds 0 to {count - 1}; got {seed}.")
    if workload.is_generated:
        kind = workload.kinds[seed % len(workload.kinds)]
        batch = batch_of(GENERATORS[kind](workload.shape, rng_of("transactions.batch", kind, seed)))
    else:
        batch = batch_of(_transactions(workload, workload.batches[seed % len(workload.batches)]))
    if workload.renaming is not None:
        batch = renumbered(batch, np.random.default_rng([workload.renaming, seed]))
    return Simulator(batch, BatchSpec(workload.budget, workload.model))


def _transactions(workload: TxnWorkload, name: str) -> tuple[str, ...]:
    if name in PUBLIC:
        folder = Path(workload.folder) if workload.folder else locate(txn_dataset())
        return read_batch(str(folder / f"{name}.json"))
    return read_batch(name, workload.sha256)


@lru_cache(maxsize=64)
def _bound(workload: TxnWorkload, seed: int) -> tuple[int, tuple[int, ...] | None]:
    world = workload.world(seed)
    order = optimal_order(world.batch, workload.model)
    return (lower_bound(world.batch, workload.model), None) if order is None else (world.schedule(order).makespan, order)


def renumbered(batch: Batch, rng: np.random.Generator) -> Batch:
    """Return the batch with its transactions in another order and its keys under other numbers."""
    order, keys = rng.permutation(len(batch)), rng.permutation(batch.keys)
    rows = np.concatenate([np.arange(batch.offsets[t], batch.offsets[t + 1]) for t in order]) if len(batch) else np.zeros(0, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.diff(batch.offsets)[order])])
    return Batch(batch.kind[rows], keys[batch.key[rows]], batch.position[rows], offsets, batch.length[order])


def named_workloads() -> Mapping[str, TxnWorkload]:
    """The workloads of the study, by name."""

    def made(name: str, seeds: int = 12, **shape: Any) -> TxnWorkload:
        return TxnWorkload(name=name, kinds=(name,), shape=Shape(**shape), seeds=seeds, is_generated=True, is_optional=True)

    every = [
        *(TxnWorkload(name=name, batches=(name,), seeds=8) for name in PUBLIC),
        *(TxnWorkload(name=f"{name}-20m", batches=(name,), budget=20 * BUDGET, seeds=4, is_optional=True) for name in PUBLIC),
        TxnWorkload(name="public", batches=PUBLIC, seeds=3, is_finite=True, is_optional=True),
        replace(made("ycsb", 2, n=7, ops=4, keys=8), name="smoke", budget=3000),
        made("ycsb"),
        made("tpcc"),
        made("smallbank", keys=100),
        made("epinions", keys=200, write_share=0.3, theta=1.2),
        made("tao", write_share=0.1),
        made("alternating", n=200, ops=9, keys=20),
        made("adversarial", ops=13),
        replace(made("ycsb", 100, n=8, ops=6, keys=6, theta=0.0), name="tiny", budget=200_000),
    ]
    return {each.name: each for each in every}


class _Key:
    """A parameter that can be set by name: how it is read, what it may be."""

    of_shape: ClassVar[tuple[str, ...]] = tuple(each.name for each in fields(Shape))

    def __init__(self, kind: type, low: float, high: float) -> None:
        self.kind, self.low, self.high = kind, low, high

    def read(self, key: str, value: Any) -> Any:
        try:
            number = self.kind(value)
        except (TypeError, ValueError):
            number = np.nan
        if not self.low <= number <= self.high:
            what = "a whole number" if self.kind is int else "a number"
            raise InputError(f"{key} must be {what} from {self.low:g} to {self.high:g}, got {value!r}.")
        return number


_KEYS = {
    "budget": _Key(int, 1, 1e12),
    "seeds": _Key(int, 1, 1e9),
    "n": _Key(int, 1, LARGEST),
    "ops": _Key(int, 2, 1000),
    "keys": _Key(int, 2, 100_000),
    "write_share": _Key(float, 0, 1),
    "theta": _Key(float, 0, 5),
    "jitter": _Key(float, 0, np.inf),
}


def adjusted(workload: TxnWorkload, params: Mapping[str, Any]) -> TxnWorkload:
    """Return the workload with parameters set by name (``--set key=value``); values may be text.

    Raises
    ------
    InputError
        For an unknown key or a value of the wrong kind.
    """
    can_shape = workload.is_generated and not workload._is_twin
    allowed = ["model", *(key for key in _KEYS if can_shape or key not in _Key.of_shape)]
    direct: dict[str, Any] = {}
    shape: dict[str, Any] = {}
    for key, value in params.items():
        if key not in allowed:
            raise InputError(f"no parameter {key!r} to set here; allowed: {', '.join(allowed)}.")
        if key == "model":
            if value not in MODELS:
                raise InputError(f"model must be one of {', '.join(MODELS)}, got {value!r}.")
            direct[key] = value
        else:
            (shape if key in _Key.of_shape else direct)[key] = _KEYS[key].read(key, value)
    made = replace(workload, **direct, shape=replace(workload.shape, **shape))
    if can_shape and {"ycsb", "tao"} & set(made.kinds) and made.shape.ops > made.shape.keys:
        raise InputError(f"ops={made.shape.ops} different keys cannot be drawn from keys={made.shape.keys}; lower ops or raise keys.")
    return made


def user_workload(path: Path, params: Mapping[str, Any]) -> TxnWorkload:
    """Return the workload of a user's batch (a JSON file) or batches (a folder of them: a finite set).

    Raises
    ------
    InputError
        Saying what to fix.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InputError(f"no batch at {str(path)!r}; give a JSON file of transactions, or a folder of such files.")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    names = tuple(str(file) for file in files)
    is_set = path.is_dir()
    workload = TxnWorkload(
        name=path.stem or str(path), batches=names, seeds=len(names) if is_set else 12, is_finite=is_set, sha256=digest.hexdigest()
    )
    workload = adjusted(workload, params)
    for seed in range(len(names)):
        n = len(workload.world(seed).batch)
        if n > LARGEST:
            raise InputError(f"{names[seed]} has {n} transactions; the bound takes up to {LARGEST}. Cut it into batches.")
    return workload
