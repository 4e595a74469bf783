"""Uniform Progress ("Can't Be Late: Optimizing Spot Instance Savings under Deadlines"): stay on the straight line p = t P / T.

On spot while there is some; on-demand when progress falls behind the line; from on-demand back to spot only with a lead that
pays for two cold starts. The siblings differ in which zones they may use after a preemption.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from cloudchamber.core.policy import Integer, Optional, Policy, Real
from cloudchamber.spot.model import FOREVER, KEEP, Decision, Launch, SpotObs, SpotSpec
from cloudchamber.spot.policies.greedy import cheapest_first, drawn_zone


class _OnTheLine(Policy):
    """What every Uniform Progress shares: when spot, when on-demand; subclasses say where."""

    def spot_order(self, obs: SpotObs) -> list[int]:
        """Zones to try for spot, best first."""
        raise NotImplementedError

    def on_demand_zone(self, obs: SpotObs) -> int:
        """Zone to fall back to."""
        cost = self.spec_.on_demand_usd_h * (self.spec_.job.work_s - obs.progress_s) / 3600
        return int(np.argmin(cost if obs.location is None else cost + self.spec_.egress_usd[obs.location]))

    def decide(self, obs: SpotObs) -> Decision:
        """Return the order that keeps the job on its line."""
        job = self.spec_.job
        pace = job.work_s / job.deadline_s
        if obs.mode == "spot":
            return Decision((KEEP,), until_s=FOREVER)
        spot = tuple([Launch(zone, "spot") for zone in self.spot_order(obs)])
        soon_s = 1e-6 * self.spec_.tick_s  # the conditions are strict: ask at the first tick after they begin to hold
        if obs.mode == "on_demand":
            lead_s = obs.progress_s - pace * (obs.time_s + 2 * job.cold_start_s)
            if lead_s > 0:
                return Decision((*spot, KEEP), until_s=FOREVER)
            # warm, the lead grows by 1 - pace per second; a cold start costs it pace per second first
            wait_s = obs.cold_s + (pace * obs.cold_s - lead_s) / max(1 - pace, 1e-12)
            return Decision((KEEP,), until_s=obs.time_s + wait_s + soon_s)
        behind_at_s = obs.progress_s / pace
        if obs.time_s > behind_at_s:
            return Decision((*spot, Launch(self.on_demand_zone(obs), "on_demand")), until_s=FOREVER)
        return Decision(spot, until_s=behind_at_s + soon_s)


class UniformProgress(_OnTheLine):
    """Uniform Progress in a single zone.

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

    def spot_order(self, obs: SpotObs) -> list[int]:
        """The one zone."""
        return [self.zone_]

    def on_demand_zone(self, obs: SpotObs) -> int:
        """The same zone: a single-zone policy never moves."""
        return self.zone_


class UniformProgressSwitch(_OnTheLine):
    """Uniform Progress with SkyPilot's eager failover: after a preemption the other zones, cheapest first, the dead one last."""

    def reset(self, spec: SpotSpec, rng: np.random.Generator) -> None:
        """Forget which zone died last."""
        super().reset(spec, rng)
        self.dead_: int | None = None

    def decide(self, obs: SpotObs) -> Decision:
        """Remember the zone that died, then stay on the line."""
        if obs.preempted is not None:
            self.dead_ = obs.preempted
        return super().decide(obs)

    def spot_order(self, obs: SpotObs) -> list[int]:
        """Cheapest first, the zone that died last at the end."""
        order = cheapest_first(obs)
        if self.dead_ is not None:
            order.sort(key=lambda zone: zone == self.dead_)
        return order


class UniformProgressAvailability(_OnTheLine):
    """Uniform Progress that prefers the zones most often found available by its last paid probes.

    Parameters
    ----------
    window : int, default 5
        Probes remembered per zone.
    probe_every_s : float, default 7200
        Least seconds between rounds of probing every zone; none while on spot.
    """

    _constraints = {"window": Integer(1, 1000), "probe_every_s": Real(1, 1e9)}
    _per_price = False

    def __init__(self, *, window: int = 5, probe_every_s: float = 7200.0) -> None:
        self.window = window
        self.probe_every_s = probe_every_s

    def reset(self, spec: SpotSpec, rng: np.random.Generator) -> None:
        """Forget all probes."""
        super().reset(spec, rng)
        self.seen_ = [deque[bool](maxlen=self.window) for _ in spec.zones]
        self.due_s_ = 0.0

    def decide(self, obs: SpotObs) -> Decision:
        """Note what the last probes told, stay on the line, and probe every zone when it is due."""
        for probe in obs.probes:
            self.seen_[probe.zone].append(probe.available)
        decision = super().decide(obs)
        if obs.mode == "spot":  # a warm instance is kept whatever a probe would say
            return decision
        if obs.time_s < self.due_s_:
            until_s = decision.until_s if decision.until_s is not None else FOREVER
            return Decision(decision.prefs, (), min(until_s, self.due_s_))
        self.due_s_ = obs.time_s + self.probe_every_s
        return Decision(decision.prefs, tuple(range(len(self.seen_))))

    def spot_order(self, obs: SpotObs) -> list[int]:
        """Most available first (per dollar, for the sibling); ties to the cheapest."""
        share = np.array([np.mean(seen) if seen else 1.0 for seen in self.seen_])
        score = share / obs.spot_usd_h if self._per_price else share
        return np.lexsort((obs.spot_usd_h, -score)).tolist()  # type: ignore[no-any-return]


class UniformProgressAvailabilityPerPrice(UniformProgressAvailability):
    """Uniform Progress that prefers the zones with the most availability per dollar by its last paid probes.

    Parameters
    ----------
    window : int, default 5
        Probes remembered per zone.
    probe_every_s : float, default 7200
        Least seconds between rounds of probing every zone; none while on spot.
    """

    _per_price = True
