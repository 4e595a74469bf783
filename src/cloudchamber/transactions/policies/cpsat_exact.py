"""The best order there is, proven, for batches of a dozen: a constraint program solved by CP-SAT."""

from __future__ import annotations

from cloudchamber.core.errors import MissingExtra
from cloudchamber.core.policy import Integer, Policy
from cloudchamber.transactions.model import APART, Batch, Model, least_gaps, makespan
from cloudchamber.transactions.policies.smf_all import SMFAll


class CPSATExact(Policy):
    """Find an order of least makespan; beyond ``limit`` transactions, and under the model occ, answer with SMFAll's.

    One literal per conflicting pair says who comes first, and one rank per transaction keeps the literals free of cycles (start times
    alone would not: a transaction may start before one that it waits for).

    It imports ortools, which a jail may not have.

    Parameters
    ----------
    limit : int, default 12
        Largest batch that is solved.
    """

    _constraints = {"limit": Integer(1, 60)}

    def __init__(self, limit: int = 12) -> None:
        self.limit = limit

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the proven best order, or SMFAll's where it cannot be had.

        Raises
        ------
        MissingExtra
            If ortools is not installed.
        """
        greedy = SMFAll()
        greedy.reset(self.spec_, self.rng_)
        start = greedy.order(batch)
        if len(batch) > self.limit or self.spec_.model == "occ":
            return start
        return solve(batch, self.spec_.model, start)


def solve(batch: Batch, model: Model, start: tuple[int, ...]) -> tuple[int, ...]:
    """Return an order of least makespan, searching from ``start``."""
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise MissingExtra("CPSATExact needs ortools", "transactions") from None
    n = len(batch)
    if n < 2:
        return tuple(range(n))
    gaps, most = least_gaps(batch, model), makespan(batch, start, model)
    program = cp_model.CpModel()
    begin = [program.new_int_var(0, most, f"begin{t}") for t in range(n)]
    rank = [program.new_int_var(0, n - 1, f"rank{t}") for t in range(n)]
    end = program.new_int_var(int(batch.length.max()), most, "end")
    for t in range(n):
        program.add(begin[t] + int(batch.length[t]) <= end)
        program.add_hint(rank[t], start.index(t))
    for t in range(n):
        for u in range(t):
            if gaps[t, u] == APART:
                continue
            is_first = program.new_bool_var(f"{t}before{u}")
            for a, b, literal in ((t, u, is_first), (u, t, ~is_first)):
                program.add(begin[b] >= begin[a] + int(gaps[a, b])).only_enforce_if(literal)
                program.add(rank[b] >= rank[a] + 1).only_enforce_if(literal)
    program.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1  # one worker and one seed: the same answer every time
    solver.parameters.random_seed = 0
    if solver.solve(program) != cp_model.OPTIMAL:
        raise RuntimeError(f"CP-SAT ended with {solver.status_name()}")
    return tuple(sorted(range(n), key=lambda t: (solver.value(rank[t]), solver.value(begin[t]), t)))
