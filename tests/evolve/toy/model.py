"""A problem small enough for tests of the search: name a price that depends on two features."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cloudchamber.core.messages import Message


class PricingSpec(Message, frozen=True):
    items: int


class Item(Message, frozen=True):
    size: float
    age: float


class Price(Message, frozen=True):
    usd: float


class Pricing(Protocol):
    def reset(self, spec: PricingSpec, rng: np.random.Generator) -> None: ...

    def price(self, item: Item) -> Price: ...
