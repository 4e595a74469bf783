"""An index as kernels read it: for each head and query block, runs of neighbouring keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from cloudchamber.attention.model import BlockIndex, Blocks


@dataclass(frozen=True)
class Plan:
    """Key blocks that lie side by side and weigh the same are one run: a window is read in one piece, whatever the block size.

    Parameters
    ----------
    index : BlockIndex
        Where it comes from, validated.
    q_starts : ndarray of int64, shape (heads or 1, query blocks + 1)
        First query of each block.
    indptr : ndarray of int32, shape (rows + 1,)
        Runs of each row of the index.
    start, stop : ndarray of int32
        Keys of each run.
    weight : ndarray of float32 or None
        Log weight of each run.
    """

    index: BlockIndex
    q_starts: np.ndarray
    indptr: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    weight: np.ndarray | None

    @classmethod
    def of(cls, index: BlockIndex) -> Self:
        """Runs of an index."""
        rows, weight = index.rows, index.log_weight
        row = np.repeat(np.arange(len(rows.indptr) - 1), np.diff(rows.indptr))
        starts = Blocks(index.k_sizes).starts()
        head = row // max(index.q_blocks, 1) if len(starts) > 1 else np.zeros_like(row)
        start, stop = starts[head, rows.indices].astype(np.int32), starts[head, rows.indices + 1].astype(np.int32)
        filled = stop > start
        if not filled.all():
            row, start, stop = row[filled], start[filled], stop[filled]
            weight = None if weight is None else weight[filled]
        first = np.ones(len(row), bool)
        first[1:] = (row[1:] != row[:-1]) | (start[1:] != stop[:-1])
        if weight is not None:
            first[1:] |= weight[1:] != weight[:-1]
        last = np.ones(len(row), bool)
        last[:-1] = first[1:]
        indptr = np.zeros(len(rows.indptr), np.int32)
        np.cumsum(np.bincount(row[first], minlength=len(rows.indptr) - 1), out=indptr[1:])
        weight = None if weight is None else np.ascontiguousarray(weight[first], np.float32)
        return cls(index, Blocks(index.q_sizes).starts(), indptr, start[first], stop[last], weight)

    @cached_property
    def transposed(self) -> Plan:
        """The same pairs seen from the keys: for each head and key block, runs of the queries that read it."""
        return Plan.of(self.index.swapped())

    def row(self, head: int, block: int) -> int:
        """Row of the index that query block ``block`` of a head obeys."""
        return (head if self.index.heads > 1 else 0) * self.index.q_blocks + block

    def queries(self, head: int, block: int) -> tuple[int, int]:
        """First query of a block, and the one after its last."""
        starts = self.q_starts[head if len(self.q_starts) > 1 else 0]
        return int(starts[block]), int(starts[block + 1])

    @cached_property
    def lengths(self) -> np.ndarray:
        """Keys that each row reads."""
        before = np.concatenate([[0], np.cumsum((self.stop - self.start).astype(np.int64))])
        return np.diff(before[self.indptr])

    def keys(self, row: int, rows: int = 1) -> slice | np.ndarray:
        """Keys that a row reads, or several rows one after another: a slice where they are neighbours."""
        runs = slice(self.indptr[row], self.indptr[row + rows])
        start, length = self.start[runs].astype(np.int64), (self.stop[runs] - self.start[runs]).astype(np.int64)
        if len(start) == 1:
            return slice(int(start[0]), int(start[0] + length[0]))
        before = np.cumsum(length) - length
        return np.repeat(start - before, length) + np.arange(length.sum())

    def bias(self, row: int, rows: int = 1) -> np.ndarray | None:
        """Log weight of each key that they read; None: all weigh 1."""
        if self.weight is None:
            return None
        runs = slice(self.indptr[row], self.indptr[row + rows])
        return np.repeat(self.weight[runs], self.stop[runs] - self.start[runs])
