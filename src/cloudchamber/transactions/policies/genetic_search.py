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
            mother, father = (alive[i][1] for i in self.rng_.choice(len(alive), 2, replace=False))
            child = self._child(mother, father)
            alive.append((makespan(batch, child, model), child))
            alive.sort(key=lambda each: each[0])
            if len(alive) > self.population:
                alive.pop()
        return tuple(min(alive, key=lambda each: each[0])[1])

    def _child(self, mother: list[int], father: list[int]) -> list[int]:
        """The mother's part between two cuts, the others around it in the father's order."""
        low, high = sorted(self.rng_.integers(len(mother) + 1, size=2).tolist())
        kept = mother[low:high]
        taken = set(kept)
        others = [t for t in father if t not in taken]
        child = others[:low] + kept + others[low:]
        if self.rng_.random() < self.mutation:
            moved = child.pop(int(self.rng_.integers(len(child))))
            child.insert(int(self.rng_.integers(len(child) + 1)), moved)
        return child
