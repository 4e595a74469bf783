"""Small markets for tests: by hand, at random, and the slow oracles they are checked with."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import strategies as st

from cloudchamber.spot import Decision, Idle, Keep, Launch, Market, Ticks, Zone
from cloudchamber.spot.traces import egress_matrix


def market(rows: list[str], *, spot=1.0, on_demand=4.0, tick_s=3600.0, regions=None, egress=0.0) -> Market:
    """A market from one string of 0/1 per zone; prices are scalars or one per zone."""
    count, ticks = len(rows), len(rows[0])
    zones = tuple(
        Zone(f"z{i}", (regions or [f"r{i}" for i in range(count)])[i], float(np.broadcast_to(on_demand, count)[i])) for i in range(count)
    )
    up = np.array([[c == "1" for c in row] for row in rows]).T
    prices = np.broadcast_to(np.asarray(spot, dtype=float), (ticks, count)).copy()
    return Market(zones, tick_s, up, prices, egress_matrix(zones, {None: egress}))


@st.composite
def worlds(draw, max_zones=4, max_ticks=40):
    """A random market and a job that fits it, cold starts up to the whole slack."""
    zones = draw(st.integers(1, max_zones))
    work = draw(st.integers(1, max_ticks // 2))
    cold = draw(st.integers(0, 6))
    deadline = work + cold + draw(st.integers(0, max_ticks - max_ticks // 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stay = draw(st.sampled_from([0.5, 0.8, 0.95]))
    up = np.zeros((deadline, zones), dtype=bool)
    up[0] = rng.random(zones) < 0.6
    for t in range(1, deadline):
        up[t] = np.where(rng.random(zones) < stay, up[t - 1], ~up[t - 1])
    prices = rng.uniform(0.1, 3.0, (deadline, zones))
    if draw(st.booleans()):
        prices[:] = prices[0]
    regions = [f"r{rng.integers(3)}" for _ in range(zones)]
    nouns = tuple(Zone(f"z{i}", regions[i], float(rng.uniform(0.5, 5.0))) for i in range(zones))
    pairs = {(a, b): float(rng.choice([0.0, 0.01, 0.02, 0.2])) for a in regions for b in regions}  # by way of a third may be cheaper
    egress = pairs if draw(st.booleans()) else {None: float(rng.uniform(0, 0.2))}
    made = Market(nouns, 60.0, up, prices, egress_matrix(nouns, egress))
    return made, Ticks(work, deadline, cold), float(rng.choice([0.0, 1.0, 5.0]))


def brute_force_optimum(market: Market, job: Ticks, checkpoint_gb: float) -> float:
    """Least cost by plain recursion over (tick, what runs where, cold ticks left, work left, checkpoint's zone)."""
    hours, egress = market.tick_s / 3600, market.egress_usd_gb * checkpoint_gb
    count = len(market.zones)

    @cache
    def least(t: int, state: int, zone: int, cold: int, left: int, location: int) -> float:
        if left == 0:
            return 0.0
        if t >= job.deadline:
            return np.inf
        if state == 1 and not market.available[t, zone]:
            state, zone, cold = 0, -1, 0
        best = tick(t, state, zone, cold, left, location)
        if state:
            best = min(best, tick(t, 0, -1, 0, left, location))
        for new in range(count):
            move = egress[location, new] if location >= 0 else 0.0
            for mode in (1, 2):
                if mode == 2 or market.available[t, new]:
                    best = min(best, move + tick(t, mode, new, job.cold_start, left, new))
        return best

    def tick(t, state, zone, cold, left, location):
        if not state:
            return least(t + 1, 0, -1, 0, left, location)
        price = (market.spot_usd_h[t, zone] if state == 1 else market.on_demand_usd_h[zone]) * hours
        return price + (least(t + 1, state, zone, cold - 1, left, location) if cold else least(t + 1, state, zone, 0, left - 1, location))

    return least(0, 0, -1, 0, job.work, -1)


class RandomPolicy:
    """Decides anything that is allowed, at random: what the guard must survive."""

    def reset(self, spec, rng):
        self.spec, self.rng = spec, rng

    def decide(self, obs):
        rng, zones = self.rng, len(self.spec.zones)
        options = [Keep(), Idle(), *(Launch(zone, mode) for zone in range(zones) for mode in ("spot", "on_demand"))]
        prefs = tuple(options[i] for i in rng.permutation(len(options))[: rng.integers(0, len(options) + 1)])
        until_s = None if rng.random() < 0.5 else obs.time_s + self.spec.tick_s * float(rng.integers(0, 20))
        probes = tuple(int(z) for z in np.flatnonzero(rng.random(zones) < 0.1))
        return Decision(prefs, probes, until_s)


class ReplaySimulator:
    """The same world in plain Python, tick by tick: the oracle of the compiled one. Asks the policy by the same rules."""

    def __init__(self, market: Market, job: Ticks, checkpoint_gb: float, probe_s: float = 60.0):
        self.market, self.job, self.gb, self.probe_s = market, job, checkpoint_gb, probe_s

    def run(self, guard) -> tuple[float, list[tuple[int, int]]]:
        from cloudchamber.spot import Probe, SpotObs, Try

        market, job, tick_s = self.market, self.job, self.market.tick_s
        hours, egress = tick_s / 3600, self.market.egress_usd_gb * self.gb
        mode, zone, cold, done, location, cost, log = "idle", None, 0, 0, None, 0.0, []
        decision, ask, preempted, tries, probes = None, True, None, {}, ()
        for t in range(job.deadline):
            if mode == "spot" and not market.available[t, zone]:
                preempted, mode, zone, cold, ask = zone, "idle", None, 0, True
            if t and (market.spot_usd_h[t] != market.spot_usd_h[t - 1]).any():
                ask = True
            if decision is not None and (decision.until_s is None or t * tick_s >= decision.until_s - 1e-6):
                ask = True
            if ask:
                made = tuple(
                    Try(z, m, ok, at * tick_s)
                    for (z, m), (ok, at) in sorted(tries.items(), key=lambda item: (item[0][0], item[0][1] != "spot"))
                )
                obs = SpotObs(t * tick_s, done * tick_s, mode, zone, location, cold * tick_s, market.spot_usd_h[t], preempted, made, probes)
                decision, tries, preempted, ask = guard.decide(obs), {}, None, False
                probes = tuple(Probe(z, bool(market.available[t, z]), t * tick_s) for z in decision.probes)
                cost += sum(market.spot_usd_h[t, p.zone] * self.probe_s / 3600 for p in probes if p.available)
            for pref in decision.prefs:
                if isinstance(pref, Keep):
                    break
                if isinstance(pref, Idle):
                    mode, zone, cold = "idle", None, 0
                    break
                if (pref.mode, pref.zone) == (mode, zone):
                    break
                granted = pref.mode == "on_demand" or bool(market.available[t, pref.zone])
                tries[pref.zone, pref.mode] = (granted, t)
                if granted:
                    cost += egress[location, pref.zone] if location is not None else 0.0
                    mode, zone, location, cold, ask = pref.mode, pref.zone, pref.zone, job.cold_start, True
                    break
            log.append((("idle", "spot", "on_demand").index(mode), -1 if zone is None else zone))
            if mode != "idle":
                cost += (market.spot_usd_h[t, zone] if mode == "spot" else market.on_demand_usd_h[zone]) * hours
                cold, done = (cold - 1, done) if cold else (0, done + 1)
            if done == job.work:
                return cost, log
        raise AssertionError("missed the deadline")
