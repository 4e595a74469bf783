"""How often a promise was broken, and what that says of the probability."""

from __future__ import annotations

from dataclasses import dataclass


def clopper_pearson(failures: int, trials: int, level: float = 0.99) -> tuple[float, float]:
    """Exact lower and upper limits of a probability, each of which errs with probability at most (1 - level) / 2.

    Examples
    --------
    >>> low, high = clopper_pearson(0, 100, 0.95)
    >>> low, round(high, 4)
    (0.0, 0.0362)
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(failures, trials - failures + 1, tail)) if failures else 0.0
    high = float(betaincinv(failures + 1, trials - failures, 1 - tail)) if failures < trials else 1.0
    return low, high


@dataclass
class Coverage:
    """A running count of checked promises."""

    checked: int = 0
    failures: int = 0

    def add(self, *, failed: bool) -> None:
        """Count one."""
        self.checked += 1
        self.failures += failed

    @property
    def failure_rate(self) -> float:
        """Share that failed; 0 before the first."""
        return self.failures / self.checked if self.checked else 0.0

    def interval(self, level: float = 0.99) -> tuple[float, float]:
        """Where the probability of failure lies."""
        return clopper_pearson(self.failures, self.checked, level)
