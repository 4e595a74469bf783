"""Let transactions in in any order: the floor."""

from __future__ import annotations

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.online.model import KeyState, TxnView


class RandomOnline(Policy):
    """Admit the whole window in a drawn order."""

    def admit(self, window: tuple[TxnView, ...], state: KeyState) -> tuple[int, ...]:
        """Return the window shuffled."""
        return tuple(window[i].number for i in self.rng_.permutation(len(window)))
