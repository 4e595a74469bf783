"""Take a few transactions out and put each back where it does least harm, again and again."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Integer, Policy
from cloudchamber.transactions.model import Batch, makespan, new_state, place, rules_of, run
from cloudchamber.transactions.policies.smf_all import SMFAll


class IteratedGreedy(Policy):
    """Remove ``d`` transactions, re-insert each at its best place, and keep the order if it is not worse.

    Starts from SMFAll. One round costs about d * n * n / 2 placements.

    Parameters
    ----------
    d : int, default 5
        Transactions taken out in a round.
    """

    _constraints = {"d": Integer(1, 1000)}

    def __init__(self, d: int = 5) -> None:
        self.d = d

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the best order found within the budget."""
        n, model = len(batch), self.spec_.model
        if n < 2:
            return tuple(range(n))
        start = SMFAll()
        start.reset(self.spec_, self.rng_)
        best = np.array(start.order(batch))
        least = makespan(batch, best, model)
        rules, state, scratch = rules_of(batch, model), new_state(batch), new_state(batch)
        d = min(self.d, n - 1)
        cost = d * n * n // 2
        for _ in range((self.spec_.budget - n * n // 2) // cost):
            out = self.rng_.choice(n, d, replace=False)
            trial = best[~np.isin(best, out)]
            for t in out:
                trial = np.insert(trial, best_place(trial, t, rules, state, scratch), t)
            end = makespan(batch, trial, model)
            if end <= least:
                best, least = trial, end
        return tuple(best.tolist())


@njit
def best_place(order, t, rules, state, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """First of the places in an order at which inserting ``t`` gives the smallest makespan."""
    for array, empty in zip(state, (0, 0, -1)):  # noqa: B905 (numba)
        array[:] = empty
    found, least, before = 0, -1, 0
    for p in range(len(order) + 1):
        for array, source in zip(scratch, state):  # noqa: B905 (numba)
            array[:] = source
        end = max(before, place(t, rules, scratch) + rules[4][t])
        end = max(end, run(order[p:], rules, scratch))
        if least < 0 or end < least:
            found, least = p, end
        if p < len(order):
            before = max(before, place(order[p], rules, state) + rules[4][order[p]])
    return found
