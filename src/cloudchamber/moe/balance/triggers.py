"""When a policy is asked for a new plan. Part of the workload, not of the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class BalanceState:
    """What a trigger sees at the end of a window.

    Parameters
    ----------
    window : int
        Windows that are over, the first one (which no plan has served) not counted.
    since : int
        Windows served with the plan in place.
    balancedness : float
        Of the last window: mean over largest device load.
    step_s, even_step_s : float
        Seconds of a forward step in the last window, and had all devices carried the same.
    steps : int
        Steps in a window.
    move_s : float
        Seconds the last change of plan took to move weights.
    """

    window: int
    since: int
    balancedness: float
    step_s: float
    even_step_s: float
    steps: int
    move_s: float


class Trigger(Protocol):
    """Says whether to ask for a new plan now. The first plan is always asked for."""

    def should(self, state: BalanceState) -> bool:
        """Whether to rebalance."""


@dataclass(frozen=True)
class Every:
    """After every k windows."""

    k: float = 1

    def should(self, state: BalanceState) -> bool:
        """Whether k windows were served."""
        return state.since >= self.k


@dataclass(frozen=True)
class Threshold:
    """When the last window was less balanced than this."""

    balancedness: float = 0.8

    def should(self, state: BalanceState) -> bool:
        """Whether balance is below the threshold."""
        return state.balancedness < self.balancedness


@dataclass(frozen=True)
class CostBenefit:
    """When an even load would save more time over the next windows than the last move took."""

    windows: float = 8

    def should(self, state: BalanceState) -> bool:
        """Whether the time to be saved exceeds that of the move."""
        return (state.step_s - state.even_step_s) * state.steps * self.windows > state.move_s


TRIGGERS = {"every": Every, "threshold": Threshold, "benefit": CostBenefit}
