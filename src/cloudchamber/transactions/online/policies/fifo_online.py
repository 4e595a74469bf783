"""Let transactions in as they come."""

from __future__ import annotations

from cloudchamber.core.policy import Policy
from cloudchamber.transactions.online.model import KeyState, TxnView


class FIFOOnline(Policy):
    """Admit the whole window in order of arrival: what a database does when nobody decides."""

    def admit(self, window: tuple[TxnView, ...], state: KeyState) -> tuple[int, ...]:
        """Return the window as it is."""
        return tuple(each.number for each in window)
