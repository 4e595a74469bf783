"""The Protocol of the policy that tries every wall; its source is in :mod:`.check`."""

from __future__ import annotations

from typing import Protocol


class Prober(Protocol):
    """Tries to get through a wall."""

    def attempt(self, wall: str, target: str) -> str:
        """Return what was got, or ``stopped: ...``."""
