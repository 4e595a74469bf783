"""Run on the cheapest on-demand instance from start to end: the ceiling every spot policy must beat."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.policy import Policy
from cloudchamber.spot.model import FOREVER, Decision, Launch, SpotObs


class OnDemandOnly(Policy):
    """Launch the cheapest on-demand instance at once and keep it.

    Never misses a deadline and never saves anything; use it as the ceiling.

    Examples
    --------
    >>> OnDemandOnly()
    OnDemandOnly()
    """

    def decide(self, obs: SpotObs) -> Decision:
        """Return the launch on the cheapest zone, standing to the end."""
        cheapest = int(np.argmin(self.spec_.on_demand_usd_h))
        return Decision((Launch(cheapest, "on_demand"),), until_s=FOREVER)
