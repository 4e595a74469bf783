"""Group transactions by the key they fight over most."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.model import WRITE, Batch


class Clustered(Policy):
    """Run transactions grouped by their hottest key, readers of it first; groups take turns.

    A key's heat is its number of writes. Turns, because neighbours of one group wait for each other and those of different groups
    need not.
    """

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the first of every group, then the second of every group, and so on."""
        heat = np.bincount(batch.key[batch.kind == WRITE], minlength=batch.keys)
        groups: dict[int, list[tuple[bool, int]]] = {}
        for t in range(len(batch)):
            accesses = batch.accesses(t)
            hottest = max((key for _, key, _ in accesses), key=lambda key: (heat[key], -key), default=-1)
            writes = any(kind == "w" and key == hottest for kind, key, _ in accesses)
            groups.setdefault(hottest, []).append((writes, t))
        turns = [(turn, t) for group in groups.values() for turn, (_, t) in enumerate(sorted(group))]
        return tuple(t for _, t in sorted(turns))
