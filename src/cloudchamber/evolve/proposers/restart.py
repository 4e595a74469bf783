"""RandomRestart: the yardstick every search is shown beside."""

from __future__ import annotations

import numpy as np

from ..model import Context, Proposal
from .mutate import mutated


class RandomRestart:
    """A starting policy with a random number of random changes: a search without memory.

    Parameters
    ----------
    stop : float
        Chance, after each change, that it was the last.
    """

    name = "restart"

    def __init__(self, stop: float = 0.35) -> None:
        self._stop = stop
        self._search: object = None

    def bind(self, search: object) -> None:
        """Learn of the run, whose starting policies are drawn from."""
        self._search = search

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal | None:
        """See :class:`Proposer`."""
        starts = getattr(self._search, "starts", ()) or context.starts
        start = starts[int(rng.integers(len(starts)))]
        made = mutated(start.source, context.problem, rng, int(min(8, rng.geometric(self._stop))))
        return None if made is None else Proposal(made[0], (start.number,) if start.number else (), made[1])
