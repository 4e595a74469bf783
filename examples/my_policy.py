"""A policy of one's own: hold spot in the cheapest zone that has some."""

from cloudchamber.spot import Decision, Keep, Launch, SpotObs, SpotSpec


class CheapestZone:
    """Try zones from cheap to dear; move only when preempted."""

    def reset(self, spec: SpotSpec, rng) -> None:
        self.spec = spec

    def decide(self, obs: SpotObs) -> Decision:
        if obs.mode == "spot":
            return Decision((Keep(),), until_s=float("inf"))
        cheapest_first = obs.spot_usd_h.argsort()
        return Decision(tuple(Launch(int(zone), "spot") for zone in cheapest_first))
