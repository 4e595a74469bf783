"""The floor: a placement that never looks at the load, and one that is drawn anew each time."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.policy import Policy
from cloudchamber.moe.balance.model import Plan


class Static(Policy):
    """Experts round robin over the slots, for ever: what an engine serves with before it balances anything."""

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return the placement in place, or round robin."""
        spec = self.spec_
        return prev or Plan(np.tile(np.arange(spec.slots) % spec.experts, (spec.layers, 1)))


class RandomPlan(Policy):
    """Every expert once, spare slots to random experts, all shuffled: what a balancer must beat to have balanced anything."""

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return a random valid plan."""
        spec = self.spec_
        spare = self.rng_.integers(spec.experts, size=(spec.layers, spec.slots - spec.experts))
        slots = np.concatenate([np.tile(np.arange(spec.experts), (spec.layers, 1)), spare], axis=1)
        return Plan(self.rng_.permuted(slots, axis=1))
