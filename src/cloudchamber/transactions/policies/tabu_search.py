"""Always take the best neighbour, even a worse one, but do not touch again what was just moved."""

from __future__ import annotations

from cloudchamber.core.policy import Integer, Policy
from cloudchamber.transactions.model import Batch, makespan
from cloudchamber.transactions.policies.smf_all import SMFAll


class TabuSearch(Policy):
    """Look at a few moves of one transaction each, take the best, and forbid that transaction for some rounds.

    Starts from SMFAll. One round costs ``neighbours`` * n placements.

    Parameters
    ----------
    neighbours : int, default 20
        Moves looked at in a round.
    tenure : int, default 10
        Rounds for which a moved transaction stays where it is.
    """

    _constraints = {"neighbours": Integer(1), "tenure": Integer(0)}

    def __init__(self, neighbours: int = 20, tenure: int = 10) -> None:
        self.neighbours = neighbours
        self.tenure = tenure

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the best order found within the budget."""
        n, model = len(batch), self.spec_.model
        if n < 2:
            return tuple(range(n))
        start = SMFAll()
        start.reset(self.spec_, self.rng_)
        now = list(start.order(batch))
        best, least = now, makespan(batch, now, model)
        free_at = [0] * n
        for turn in range((self.spec_.budget - n * n // 2) // (self.neighbours * n)):
            moves = []
            for source, target in self.rng_.integers(n, size=(self.neighbours, 2)).tolist():
                moved = now[:source] + now[source + 1 :]
                moved.insert(target, now[source])
                end = makespan(batch, moved, model)
                if free_at[now[source]] <= turn or end < least:
                    moves.append((end, now[source], moved))
            if not moves:
                continue
            end, transaction, now = min(moves, key=lambda move: move[0])
            free_at[transaction] = turn + 1 + self.tenure
            if end < least:
                best, least = now, end
        return tuple(best)
