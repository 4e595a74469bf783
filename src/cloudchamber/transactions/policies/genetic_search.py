"""Breed orders: children take a part of one parent and the rest in the order of the other."""

from __future__ import annotations

from cloudchamber.core.policy import Integer, Policy, Real
from cloudchamber.transactions.model import Batch, makespan
from cloudchamber.transactions.policies.smf import SMF


class GeneticSearch(Policy):
    """Order crossover, an occasional move, and the better half survives.

    The first generation is made by SMF(10), whose orders differ from draw to draw.

    Parameters
    ----------
    population : int, default 20
        Orders alive at a time.
    mutation : float, default 0.5
        Probability that a child has one transaction moved.
    """

    _constraints = {"population": Integer(2), "mutation": Real(0, 1)}

    def __init__(self, population: int = 20, mutation: float = 0.5) -> None:
        self.population = population
        self.mutation = mutation

    def order(self, batch: Batch) -> tuple[int, ...]:
        """Return the best order bred within the budget."""
        n, model = len(batch), self.spec_.model
        if n < 2:
            return tuple(range(n))
        greedy = SMF(10)
        greedy.reset(self.spec_, self.rng_)
        first_cost = 11 * n  # placements of one greedy order and its evaluation
        alive = []
        for _ in range(max(2, min(self.population, self.spec_.budget // first_cost))):
            order = list(greedy.order(batch))
            alive.append((makespan(batch, order, model), order))
        for _ in range((self.spec_.budget - len(alive) * first_cost) // n):
            child = self._child(alive)
            alive.append((makespan(batch, child, model), child))
            alive.sort(key=lambda each: each[0])
            if len(alive) > self.population:
                alive.pop()
        return tuple(min(alive, key=lambda each: each[0])[1])

    def _child(self, alive: list[tuple[int, list[int]]]) -> list[int]:
        """The mother's part between two cuts, the others around it in the father's order."""
        n, draws = len(alive[0][1]), self.rng_.random(7).tolist()  # one call: drawing is what costs time here
        mother = int(draws[0] * len(alive))
        father = (mother + 1 + int(draws[1] * (len(alive) - 1))) % len(alive)  # somebody else
        low, high = sorted((int(draws[2] * (n + 1)), int(draws[3] * (n + 1))))
        kept = alive[mother][1][low:high]
        taken = set(kept)
        others = [t for t in alive[father][1] if t not in taken]
        child = others[:low] + kept + others[low:]
        if draws[4] < self.mutation:
            moved = child.pop(int(draws[5] * n))
            child.insert(int(draws[6] * n), moved)
        return child
