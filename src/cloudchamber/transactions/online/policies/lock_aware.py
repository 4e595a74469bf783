"""Let in only what conflicts with nothing that runs."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.online.model import KeyState, TxnView


class LockAware(Policy):
    """Admit, oldest first, transactions whose hot keys nobody uses in a conflicting way; if there is none, the oldest when all is quiet."""

    def admit(self, window: tuple[TxnView, ...], state: KeyState) -> tuple[int, ...]:
        """Return at most as many as there are free workers."""
        writing = set(state.keys[np.isfinite(state.written_until_s)].tolist())
        reading = set(state.keys[np.isfinite(state.read_until_s)].tolist())
        chosen: list[int] = []
        for each in window:
            if len(chosen) == state.free_workers:
                break
            if writing.isdisjoint(each.reads + each.writes) and reading.isdisjoint(each.writes):
                chosen.append(each.number)
                writing.update(each.writes)
                reading.update(each.reads)
        if not chosen and state.free_workers == self.spec_.workers:
            chosen = [window[0].number]
        return tuple(chosen)
