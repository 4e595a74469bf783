"""SkyNomad: go where a dollar buys the most progress, as long as the place is expected to live."""

from __future__ import annotations

import math

import numpy as np

from cloudchamber.core.policy import Choice, Instance, Policy, Real, clone
from cloudchamber.spot.model import KEEP, Decision, Job, Launch, Mode, SpotObs, SpotSpec
from cloudchamber.spot.policies.lifetime import Lifetime, NelsonAalen

VALUES = ("pace", "sqrt", "quadratic", "exponential", "time", "drift")


class SkyNomad(Policy):
    """Launch where the utility per hour is highest: U = V * eta - price - E / L.

    eta = max(L - d, 0) / L is the useful share of an episode of expected length L with cold start d, E the egress of getting
    there, V the value of an hour of progress. A better place must win by ``margin * V``; a running spot instance is
    never stopped to idle. Zones are probed, at a price, only where the answer could change the choice.

    Parameters
    ----------
    value : {"pace", "sqrt", "quadratic", "exponential", "time", "drift"}, default "pace"
        Value of progress. With q = (remaining work / remaining time) / (pace so far) and o the cheapest on-demand price:
        pace o*q, sqrt o*sqrt(q), quadratic o*t/(T-t)*(P-p)/P, exponential o*exp(q-1), time o*t/(T-t), drift o*(P-p)/P.
    lifetime : Lifetime, default NelsonAalen()
        ``Oracle()`` makes the policy clairvoyant.
    probing : {"useful", "never"}, default "useful"
        Probe zones that are cheaper than the present one by the margin but look too short-lived to move to.
    margin : float, default 0.02
        Share of V by which a new place must be better.
    review_s : float, default 240
        Seconds after which a standing order is reconsidered.
    probe_every_s : float, default 21600
        Seconds between probes of one zone.

    References
    ----------
    SkyNomad: On Using Multi-Region Spot Instances to Minimize AI Batch Job Cost.
    """

    _constraints = {
        "value": Choice(*VALUES),
        "lifetime": Instance(Lifetime),
        "probing": Choice("useful", "never"),
        "margin": Real(0, 1),
        "review_s": Real(1, 1e9),
        "probe_every_s": Real(1, 1e9),
    }

    def __init__(
        self,
        value: str = "pace",
        *,
        lifetime: Lifetime = NelsonAalen(),  # noqa: B008
        probing: str = "useful",
        margin: float = 0.02,
        review_s: float = 240.0,
        probe_every_s: float = 21600.0,
    ) -> None:
        self.value = value
        self.lifetime = lifetime
        self.probing = probing
        self.margin = margin
        self.review_s = review_s
        self.probe_every_s = probe_every_s

    @property
    def clairvoyant(self) -> bool:  # type: ignore[override]
        """Whether the lifetime model looks into the future."""
        return self.lifetime.clairvoyant

    def reset(self, spec: SpotSpec, rng: np.random.Generator) -> None:
        """Forget everything learned."""
        super().reset(spec, rng)
        self.lifetime_ = clone(self.lifetime)
        self.lifetime_.reset(spec)
        self.on_demand_usd_h_ = spec.on_demand_usd_h
        self.seen_s_ = np.full(len(spec.zones), -math.inf)

    def decide(self, obs: SpotObs) -> Decision:
        """Score every place and return those better than the present one, best first."""
        self._learn(obs)
        job = self.spec_.job
        left_s, time_left_s = job.work_s - obs.progress_s, job.deadline_s - obs.time_s
        held = obs.zone if obs.mode == "spot" and obs.zone is not None else -1
        life_s = np.minimum(self.lifetime_.expected_s(obs.time_s, held), time_left_s)
        egress = self.spec_.egress_usd[obs.location] if obs.location is not None else 0.0
        value = self._value_usd_h(obs)
        cold_s = job.cold_start_s
        spot = _utility(value, life_s, cold_s, obs.spot_usd_h, egress)
        on_demand = _utility(value, np.full(len(life_s), left_s), cold_s, self.on_demand_usd_h_, egress)
        here = self._utility_here(obs, value, float(life_s[held]) if held >= 0 else left_s)
        places: list[tuple[float, int, Mode]] = [(u, zone, "spot") for zone, u in enumerate(spot.tolist()) if zone != held]
        places += [(u, zone, "on_demand") for zone, u in enumerate(on_demand.tolist()) if obs.mode != "on_demand" or zone != obs.zone]
        floor = here + self.margin * value
        better = sorted([each for each in places if each[0] > floor], reverse=True)
        prefs = tuple([Launch(zone, mode) for _, zone, mode in better])
        probes = self._probes(obs, {zone for _, zone, mode in better if mode == "spot"}, self.margin * value)
        return Decision((*prefs, KEEP), probes, None if probes else obs.time_s + self.review_s)

    def _utility_here(self, obs: SpotObs, value: float, life_s: float) -> float:
        """Utility of staying: no egress, and only what is left of the cold start. Idle is 0, but is no choice once spot runs."""
        if obs.zone is None:
            return 0.0
        price = obs.spot_usd_h[obs.zone] if obs.mode == "spot" else self.on_demand_usd_h_[obs.zone]
        return -math.inf if life_s <= 0 else float(value * max(life_s - obs.cold_s, 0.0) / life_s - price)

    def _probes(self, obs: SpotObs, tried: set[int], margin_usd_h: float) -> tuple[int, ...]:
        """Cheaper zones whose short expected life keeps us away, if they have not been seen for a while."""
        if self.probing == "never" or obs.mode != "spot" or obs.cold_s > 0:
            return ()
        cheaper = obs.spot_usd_h < obs.spot_usd_h[obs.zone] - margin_usd_h
        due = cheaper & (obs.time_s - self.seen_s_ >= self.probe_every_s)
        if not due.any():
            return ()
        return tuple([zone for zone in np.flatnonzero(due).tolist() if zone not in tried])

    def _learn(self, obs: SpotObs) -> None:
        if obs.preempted is not None:
            self._saw(obs.preempted, False, obs.time_s)
        for each in obs.tries:
            if each.mode == "spot":
                self._saw(each.zone, each.granted, each.time_s)
        for probe in obs.probes:
            self._saw(probe.zone, probe.available, probe.time_s)
        if obs.mode == "spot" and obs.zone is not None:
            self._saw(obs.zone, True, obs.time_s)

    def _saw(self, zone: int, available: bool, time_s: float) -> None:
        self.lifetime_.seen(zone, available, time_s)
        self.seen_s_[zone] = time_s

    def _value_usd_h(self, obs: SpotObs) -> float:
        """V, the value of an hour of progress; 0 at the end, o at the start (by the smoothed pace)."""
        job: Job = self.spec_.job
        done_s, now_s = obs.progress_s, obs.time_s
        left_s, time_left_s = job.work_s - done_s, job.deadline_s - now_s
        floor: float = self.on_demand_usd_h_.min().item()
        share = left_s / job.work_s
        if self.value == "drift":
            return floor * share
        if self.value in ("quadratic", "time"):
            return floor * now_s / time_left_s * (share if self.value == "quadratic" else 1.0)
        start_s: float = max(job.cold_start_s, self.spec_.tick_s)  # so that the pace is defined at 0
        pace = (done_s + start_s * job.work_s / job.deadline_s) / (now_s + start_s)
        q = left_s / time_left_s / pace
        return floor * {"pace": q, "sqrt": math.sqrt(q), "exponential": math.exp(min(q - 1, 50.0))}[self.value]


def _utility(value: float, life_s: np.ndarray, cold_s: float, price_usd_h: np.ndarray, egress_usd: np.ndarray | float) -> np.ndarray:
    """U = V * eta - price - E / L of launching; L in seconds."""
    life_s = np.maximum(life_s, 1e-9)
    utility: np.ndarray = value * np.maximum(life_s - cold_s, 0.0) / life_s - price_usd_h - egress_usd * 3600 / life_s
    return utility
