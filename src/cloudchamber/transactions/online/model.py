"""The nouns of online transaction scheduling: what a scheduler sees of waiting transactions and hot keys, and what it answers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cloudchamber.core.messages import Message


class TxnView(Message, frozen=True):
    """A transaction that waits, as far as it is known before it runs.

    Parameters
    ----------
    number : int
        Its name; transactions are numbered in order of arrival.
    kind, argument : int
        Which stored procedure, called with what.
    arrived_s : float
        When, in seconds since the start.
    attempts : int
        How often it was aborted.
    reads, writes : tuple of int
        Hot keys it will probably touch, as learned from finished transactions of the same kind and argument. Cold keys are left out.
    """

    number: int
    kind: int
    argument: int
    arrived_s: float
    attempts: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]


class KeyState(Message, frozen=True):
    """What runs now.

    Parameters
    ----------
    time_s : float
        Seconds since the start.
    free_workers : int
        Workers that have nothing to do.
    keys : ndarray of int64
        Hot keys that running transactions will probably touch.
    written_until_s, read_until_s : ndarray
        When the last of those that write each key, and of those that read it, should end; -inf where there is none.
    """

    time_s: float
    free_workers: int
    keys: np.ndarray
    written_until_s: np.ndarray
    read_until_s: np.ndarray


class OnlineSpec(Message, frozen=True):
    """What a scheduler knows beforehand: the workers, the time one access takes, and the largest window it is shown."""

    workers: int
    service_s: float
    window: int


class OnlineScheduler(Protocol):
    """Decides which waiting transactions enter next, and in which order."""

    def reset(self, spec: OnlineSpec, rng: np.random.Generator) -> None:
        """Forget everything and learn the static facts of the next run."""

    def admit(self, window: tuple[TxnView, ...], state: KeyState) -> tuple[int, ...]:
        """Return numbers of waiting transactions, first to enter first; those left out are shown again when a worker is free."""
