"""SkyNomad: go where a dollar buys the most progress, as long as the place is expected to live."""

from __future__ import annotations

import math

import numpy as np

from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Choice, Instance, Policy, Real, clone
from cloudchamber.spot.model import KEEP, MODES, Decision, Job, Launch, SpotObs, SpotSpec
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
        self.floor_usd_h_ = float(self.on_demand_usd_h_.min())
        self.seen_s_ = np.full(len(spec.zones), -math.inf)
        self.launches_ = [Launch(zone, mode) for zone in range(len(spec.zones)) for mode in MODES]
        self.egress_usd_ = np.vstack([spec.egress_usd, np.zeros(len(spec.zones))])  # the last row: from nowhere, before the first launch

    def decide(self, obs: SpotObs) -> Decision:
        """Score every place and return those better than the present one, best first."""
        self._learn(obs)
        job = self.spec_.job
        zone = -1 if obs.zone is None else obs.zone
        held = zone if obs.mode == "spot" else -1
        value = self._value_usd_h(obs)
        places = better_places(
            self.lifetime_.expected_s(obs.time_s, held),
            obs.spot_usd_h,
            self.on_demand_usd_h_,
            self.egress_usd_[-1 if obs.location is None else obs.location],
            zone,
            obs.mode == "spot",
            obs.cold_s,
            job.cold_start_s,
            job.work_s - obs.progress_s,
            job.deadline_s - obs.time_s,
            value,
            self.margin * value,
        )
        prefs = tuple([self.launches_[place] for place in places.tolist()])
        probes = () if held < 0 or obs.cold_s > 0 else self._probes(obs, held, prefs, self.margin * value)
        return Decision((*prefs, KEEP), probes, None if probes else obs.time_s + self.review_s)

    def _probes(self, obs: SpotObs, held: int, tried: tuple[Launch, ...], margin_usd_h: float) -> tuple[int, ...]:
        """Cheaper zones whose short expected life keeps us away, if they have not been seen for a while."""
        if self.probing == "never":
            return ()
        stale = stale_cheaper(self.seen_s_, obs.spot_usd_h, held, obs.time_s - self.probe_every_s, margin_usd_h)
        if not stale.size:
            return ()
        tried_zones = {launch.zone for launch in tried if launch.mode == "spot"}
        return tuple([zone for zone in stale.tolist() if zone not in tried_zones])

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
        floor = self.floor_usd_h_
        share = left_s / job.work_s
        if self.value == "drift":
            return floor * share
        if self.value in ("quadratic", "time"):
            return floor * now_s / time_left_s * (share if self.value == "quadratic" else 1.0)
        start_s: float = max(job.cold_start_s, self.spec_.tick_s)  # so that the pace is defined at 0
        pace = (done_s + start_s * job.work_s / job.deadline_s) / (now_s + start_s)
        q = left_s / time_left_s / pace
        return floor * {"pace": q, "sqrt": math.sqrt(q), "exponential": math.exp(min(q - 1, 50.0))}[self.value]


@njit
def utility(value, life_s, cold_s, price_usd_h, egress_usd):  # type: ignore[no-untyped-def]  # pragma: no cover
    """U = V * eta - price - E / L per hour, of an episode of ``life_s`` seconds with ``cold_s`` of cold start before it."""
    if life_s <= 0.0:
        return -np.inf
    return value * max(life_s - cold_s, 0.0) / life_s - price_usd_h - egress_usd * 3600.0 / life_s


@njit
def stale_cheaper(seen_s, spot_usd_h, held, before_s, margin_usd_h):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the zones cheaper than ``held`` by ``margin_usd_h`` and last seen by ``before_s``."""
    return np.flatnonzero((seen_s <= before_s) & (spot_usd_h < spot_usd_h[held] - margin_usd_h))


@njit
def better_places(  # type: ignore[no-untyped-def]  # pragma: no cover
    life_s, spot_usd_h, on_demand_usd_h, egress_usd, zone, is_spot, here_cold_s, cold_s, left_s, time_left_s, value, margin
):
    """Return the places better than the present one by ``margin``, best first, as 2 * zone + (1 if on-demand).

    Idle (zone -1) has utility 0; staying has no egress and only the rest of its cold start. The first on-demand place ends the
    list, since it is always granted.
    """
    zones = len(life_s)
    here = 0.0
    if zone >= 0:
        life = min(life_s[zone], time_left_s) if is_spot else left_s
        here = utility(value, life, here_cold_s, spot_usd_h[zone] if is_spot else on_demand_usd_h[zone], 0.0)
    scores = np.full(2 * zones, -np.inf)
    for each in range(zones):
        if not (is_spot and each == zone):
            scores[2 * each] = utility(value, min(life_s[each], time_left_s), cold_s, spot_usd_h[each], egress_usd[each])
        if is_spot or each != zone:
            scores[2 * each + 1] = utility(value, left_s, cold_s, on_demand_usd_h[each], egress_usd[each])
    order = np.empty(2 * zones, dtype=np.int64)
    count = 0
    while count < 2 * zones:
        best = -1
        for place in range(2 * zones):
            if scores[place] > here + margin and (best < 0 or scores[place] >= scores[best]):
                best = place
        if best < 0:
            break
        order[count] = best
        count += 1
        if best % 2:
            break
        scores[best] = -np.inf
    return order[:count]
