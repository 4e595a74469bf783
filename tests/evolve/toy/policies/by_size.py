"""Price by size."""

from __future__ import annotations

from cloudchamber.core.policy import Policy, Real
from tests.evolve.toy.model import Item, Price


class BySize(Policy):
    """Price proportional to size.

    Parameters
    ----------
    rate : float
        USD per unit of size.
    """

    _constraints = {"rate": Real(0, 100)}

    def __init__(self, rate=1.0):
        self.rate = rate

    def price(self, item: Item) -> Price:
        usd = self.rate * item.size  # the age is not looked at
        return Price(usd)
