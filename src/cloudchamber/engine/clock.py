"""Two clocks: the machine's, and a virtual one that the engine moves."""

from __future__ import annotations

import time


class RealClock:
    """Monotonic seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def now(self) -> float:
        """The time."""
        return time.monotonic() - self._start

    def advance(self, seconds: float) -> None:
        """The step has taken its time already."""

    def wait(self, until: float) -> None:
        """Sleep."""
        time.sleep(max(0.0, until - self.now()))


class VirtualClock:
    """Stands still until it is advanced."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """The time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on."""
        self._now += seconds

    def wait(self, until: float) -> None:
        """Move on to a point in time."""
        self._now = max(self._now, until)
