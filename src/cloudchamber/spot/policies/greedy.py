"""Spot whenever there is any, never on-demand by choice: only the deadline guard saves these from being late."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Integer, Optional, Policy
from cloudchamber.spot.model import FOREVER, KEEP, Decision, Launch, SpotObs, SpotSpec


class GreedySpot(Policy):
    """Hold a spot instance in one zone whenever that zone has one.

    Parameters
    ----------
    zone : int or None, default None
        The zone's index. None draws one with the trial's ``rng``, so that the mean over seeds stands for the mean over zones.
    """

    _constraints = {"zone": Optional(Integer(0))}

    def __init__(self, zone: int | None = None) -> None:
        self.zone = zone

    def reset(self, spec: SpotSpec, rng: np.random.Generator) -> None:
        """Choose the zone."""
        super().reset(spec, rng)
        self.zone_ = drawn_zone(self.zone, spec, rng)

    def decide(self, obs: SpotObs) -> Decision:
        """Return the standing order to be on spot in the zone."""
        return Decision((Launch(self.zone_, "spot"), KEEP), until_s=FOREVER)


class GreedyMulti(Policy):
    """Hold a spot instance in whichever zone has one, the cheapest first, and never move while it lives."""

    def decide(self, obs: SpotObs) -> Decision:
        """Return the standing order to be on spot anywhere."""
        if obs.mode == "spot":
            return Decision((KEEP,), until_s=FOREVER)
        return Decision(tuple([Launch(zone, "spot") for zone in cheapest_first(obs)]), until_s=FOREVER)


def drawn_zone(zone: int | None, spec: SpotSpec, rng: np.random.Generator) -> int:
    """Return ``zone``, or a random one for None.

    Raises
    ------
    InputError
        If the market has no such zone.
    """
    if zone is None:
        return int(rng.integers(len(spec.zones)))
    if zone >= len(spec.zones):
        raise InputError(f"zone must be an index from 0 to {len(spec.zones) - 1}, got {zone}.")
    return zone


def cheapest_first(obs: SpotObs) -> list[int]:
    """Zone indices in order of their spot price now."""
    return np.argsort(obs.spot_usd_h, kind="stable").tolist()  # type: ignore[no-any-return]
