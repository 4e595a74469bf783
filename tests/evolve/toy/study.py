"""The study of the toy problem: the right price is 2 * size + 3 * age."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloudchamber.core.errors import CandidateError
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Study, Workload, rng_of

from .model import Item, Price, Pricing, PricingSpec
from .policies.by_size import BySize
from .policies.flat import Flat


@dataclass(frozen=True, kw_only=True)
class Shop(Workload):
    age: float = 1.0
    instances: tuple[int, ...] = ()

    def part(self, lo, hi):
        if not self.is_finite:
            return self if self.is_generated else None
        n = len(self.instances)
        chosen = self.instances[int(lo * n) : int(hi * n)]
        return replace(self, instances=chosen, seeds=len(chosen)) if chosen else None


class PricingStudy(Study):
    """Prices."""

    name = "pricing"
    title = "Name a price"
    systems = ("none",)
    papers = ("none",)
    protocol = Pricing
    metrics = (Metric("cost", "USD"), Metric("dearest", "USD", low=0.0, high=100.0), Metric("spread", "USD"))
    floor = ("Flat",)
    libraries = ("numpy",)

    def policies(self):
        return {"BySize": BySize, "Flat": Flat}

    def workloads(self):
        all_ = (
            Shop(name="young", age=0.5, is_generated=True),
            Shop(name="old", age=2.0, is_generated=True),
            Shop(name="few", age=1.0, is_finite=True, instances=tuple(range(8)), seeds=8, is_optional=True),
            Shop(name="tiny", age=1.0, is_finite=True, instances=(0,), seeds=1, is_optional=True),
            Shop(name="smoke", age=1.0, is_generated=True, is_optional=True, seeds=2),
        )
        return {each.name: each for each in all_}

    def trial(self, policy, workload, seed):
        seed = workload.instances[seed] if workload.instances else seed
        rng = rng_of(self.name, workload.name, seed)
        policy.reset(PricingSpec(8), rng_of(self.name, "policy", seed))
        lost, prices = 0.0, []
        for _ in range(8):
            item = Item(float(rng.uniform(0, 1)), float(rng.uniform(0, workload.age)))
            answer = policy.price(item)
            if not isinstance(answer, Price) or not isinstance(answer.usd, (int, float)):
                raise CandidateError("price() must return a Price", "type")
            prices.append(float(answer.usd))
            lost += abs(answer.usd - (2 * item.size + 3 * item.age))
        spread = max(prices) - min(prices)
        return Outcome({"cost": 1.0 + lost / 8, "dearest": max(prices), "spread": spread}, feedback=f"off by {lost / 8:.2f} USD on average")

    def bound(self, workload, seed):
        return Bound(1.0, False)
