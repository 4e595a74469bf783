"""Annealed local search over orders: what evolved programs converge to."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Policy, Real
from cloudchamber.transactions.model import Batch, makespan, new_state, place, rules_of
from cloudchamber.transactions.policies.clustered import Clustered
from cloudchamber.transactions.policies.fifo import FIFO
from cloudchamber.transactions.policies.smf_all import SMFAll

STEP = 8  # places between two checkpoints


class LocalSearch(Policy):
    """Start from the best cheap order; move, swap or reverse; keep what is not worse, and sometimes what is.

    A change that lengthens the schedule by d slots is kept with probability exp(-d / temperature), and the temperature falls
    geometrically from ``hot`` to ``cold`` slots while the budget is spent. Most steps leave the makespan as it is: walking these
    plateaus is what finds the way down.

    Parameters
    ----------
    hot : float, default 1.0
        Temperature at the start, in slots.
    cold : float, default 0.1
        Temperature at the end, in slots.
    """

    _constraints = {"hot": Real(0, 1e6, strict=True), "cold": Real(0, 1e6, strict=True)}

    def __init__(self, hot: float = 1.0, cold: float = 0.1) -> None:
        self.hot = hot
        self.cold = cold

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the best order found within the budget."""
        if len(batch) < 2:
            return tuple(range(len(batch)))
        starts = []
        for policy in (FIFO(), Clustered(), SMFAll()):
            policy.reset(self.spec_, self.rng_)
            starts.append(policy.order(batch))
        begin = min(starts, key=lambda order: makespan(batch, order, self.spec_.model))
        left = self.spec_.budget - len(batch) * len(batch) // 2 - 5 * len(batch)  # SMFAll, and three evaluations
        found = anneal(np.array(begin), rules_of(batch, self.spec_.model), new_state(batch), left, self.hot, self.cold, self.rng_)
        return tuple(found.tolist())


@njit
def anneal(order, rules, state, budget, hot, cold, rng):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the best order seen in ``budget`` placements."""
    n = len(order)
    places = -(-n // STEP)
    saved = np.zeros((places, len(state[0])), np.int64), np.zeros((places, len(state[1])), np.int64), np.zeros(places, np.int64)
    best, trial = order.copy(), order.copy()
    now, least, spent, first, limit = np.inf, np.inf, 0, 0, np.inf  # the first round is the order as it is
    while True:
        end, cost = replay(trial, first, limit, rules, state, saved, False)
        spent += cost
        if end <= limit:
            now = end
            order[:] = trial
            spent += replay(order, first, limit, rules, state, saved, True)[1]
            if now < least:
                least = now
                best[:] = order
        if spent >= budget:
            return best
        first = change(order, trial, rng)
        temperature = hot * (cold / hot) ** (spent / budget)
        limit = now - temperature * np.log(1.0 - rng.random())  # exp(-d / temperature), drawn before d is known


@njit
def change(order, trial, rng):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write a neighbour of an order into ``trial`` and return the first place that differs."""
    n = len(order)
    i, j, kind = int(rng.random() * n), int(rng.random() * n), rng.random()
    first, last = min(i, j), max(i, j)
    for p in range(n):
        trial[p] = order[p]
    if kind < 0.6:  # move one transaction
        step = 1 if i < j else -1
        for p in range(i, j, step):
            trial[p] = order[p + step]
        trial[j] = order[i]
    elif kind < 0.9:  # swap two
        trial[i], trial[j] = order[j], order[i]
    else:  # reverse a part
        for p in range(first, last + 1):
            trial[p] = order[first + last - p]
    return first


@njit
def replay(order, first, limit, rules, state, saved, keep):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Makespan of an order known up to place ``first``, and what it cost; gives up once it is over the limit.

    With ``keep`` the checkpoints are written, every ``STEP`` places the state before that place; else the one before ``first`` is read.
    """
    read_free, write_free, begin = state
    at = first // STEP
    read_free[:] = saved[0][at]
    write_free[:] = saved[1][at]
    end = saved[2][at]
    for p in range(at * STEP, len(order)):
        begin[order[p]] = -1
    for p in range(at * STEP, len(order)):
        if keep and p % STEP == 0:
            saved[0][p // STEP] = read_free
            saved[1][p // STEP] = write_free
            saved[2][p // STEP] = end
        end = max(end, place(order[p], rules, state) + rules[4][order[p]])
        if end > limit:
            return end, p - at * STEP + 1
    return end, len(order) - at * STEP
