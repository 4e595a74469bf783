"""Requests in any order: the floor."""

from __future__ import annotations

from collections.abc import Sequence

from cloudchamber.core.policy import Policy
from cloudchamber.engine.model import ReqView, SchedulerPolicy, View


class RandomOrder(Policy, SchedulerPolicy):
    """Serve whoever is drawn."""

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """The waiting requests, shuffled."""
        return [waiting[i].id for i in self.rng_.permutation(len(waiting)).tolist()]
