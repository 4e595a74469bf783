"""A small Protocol and world for the tests of the jail: guess a number."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cloudchamber.core.messages import AnyFloat, Message


class Clue(Message, frozen=True):
    """What a player sees."""

    step: int
    values: np.ndarray


class Guess(Message, frozen=True):
    """What it answers."""

    number: float
    until_s: AnyFloat = 0.0
    text: str = ""
    picks: tuple[int, ...] = ()
    mask: np.ndarray | None = None


class Player(Protocol):
    """Guesses numbers."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start."""

    def guess(self, clue: Clue) -> Guess:
        """Answer."""
