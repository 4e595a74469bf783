"""The trivial policy."""

from __future__ import annotations

from cloudchamber.core.policy import Policy
from tests.evolve.toy.model import Item, Price


class Flat(Policy):
    """One price for all."""

    def price(self, item: Item) -> Price:
        return Price(1.0)
