"""The offline optimum: what the job would have cost with the whole trace known, exactly.

Backward in time over (where the checkpoint lies; a warm spot instance; a warm on-demand instance) x remaining work. A launch
at t costs d ticks of its price and is warm at t + d if the spot capacity lasts until then. A launch given up after one tick is
worth its price only as a stop-over, where egress by way of a third region is cheaper than the direct one. The first launch
has no egress and may wait: F(t) = min(F(t + 1), min over launches). Checkpoints are free to move inside a region, so idle and
on-demand states are kept per region, without loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.jit import njit

from .market import Market, Ticks


@dataclass(frozen=True, eq=False)
class Optimum:
    """The least cost, and per tick of the schedule that attains it: state (0 idle, 1 spot, 2 on-demand) and zone (or -1)."""

    cost_usd: float
    state: np.ndarray
    zone: np.ndarray


@partial(njit, fastmath={"nnan", "nsz", "arcp", "contract"})  # infinities stay
def _backward(spot_usd, cold_usd, stop_usd, region, on_demand_usd, egress_usd, work, cold, choices):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill ``choices`` and return (cost, tick of the first launch).

    States: [0, R) idle by region, [R, R + Z) warm spot by zone, [R + Z, 2R + Z) warm on-demand by region. A choice is 0 for going on
    (waiting, working), 1 + s for launching into warm state R + s, 1 + Z + R + h for a stop-over in region h, 255 for releasing.
    """
    ticks, zones = spot_usd.shape
    regions = len(on_demand_usd)
    states = 2 * regions + zones
    warm = regions
    values = np.full((cold + 2, states, work + 1), np.inf)  # ring over t .. t + max(cold, 1)
    ring = cold + 2
    values[:, :, 0] = 0.0
    entry = np.full((regions, work + 1), np.inf)
    entry_choice = np.zeros((regions, work + 1), dtype=np.uint8)
    best_first, first_tick = np.inf, -1
    for t in range(ticks - 1, -1, -1):
        now, after, landed = values[t % ring], values[(t + 1) % ring], values[(t + cold) % ring]
        low, high = max(1, work - t), min(work, ticks - t)
        if low > high:
            continue
        for h in range(regions):  # best launch into each region; cold == 0 lands in this very tick, handled below
            for w in range(low, high + 1):
                entry[h, w] = np.inf
        # warm states first: they need only t + 1, plus release, which needs idle(t); idle needs warm(t + cold)
        for z in range(zones):
            row, before, price, pick = now[warm + z], after[warm + z], spot_usd[t, z], choices[t, warm + z]
            if np.isfinite(price):
                for w in range(low, high + 1):
                    row[w] = price + before[w - 1]
                    pick[w] = 0
            else:
                for w in range(low, high + 1):
                    row[w] = np.inf
                    pick[w] = 255
        for h in range(regions):
            row, before, price, pick = now[warm + zones + h], after[warm + zones + h], on_demand_usd[h], choices[t, warm + zones + h]
            for w in range(low, high + 1):
                row[w] = price + before[w - 1]
                pick[w] = 0
        if t + cold <= ticks:
            for z in range(zones):
                price = cold_usd[t, z]
                if not np.isfinite(price):
                    continue
                h, row = region[z], landed[warm + z]
                for w in range(low, min(high, ticks - t - cold) + 1):
                    cost = price + row[w]
                    if cost < entry[h, w]:
                        entry[h, w] = cost
                        entry_choice[h, w] = 1 + z
            for h in range(regions):
                price, row = cold * on_demand_usd[h], landed[warm + zones + h]
                for w in range(low, min(high, ticks - t - cold) + 1):
                    cost = price + row[w]
                    if cost < entry[h, w]:
                        entry[h, w] = cost
                        entry_choice[h, w] = 1 + zones + h
        for g in range(regions):
            row, before, pick = now[g], after[g], choices[t, g]
            for w in range(low, high + 1):
                row[w] = before[w]
                pick[w] = 0
            if high == ticks - t:
                row[high] = np.inf  # waiting here would leave more work than time
            for h in range(regions):
                move = egress_usd[g, h]
                for w in range(low, high + 1):
                    cost = entry[h, w] + move
                    if cost < row[w]:
                        row[w] = cost
                        pick[w] = entry_choice[h, w]
            if len(stop_usd) == 0:
                continue
            for h in range(regions):
                price, idle = stop_usd[t, h] + egress_usd[g, h], after[h]
                for w in range(low, min(high, ticks - t - 1) + 1):
                    if price + idle[w] < row[w]:
                        row[w] = price + idle[w]
                        pick[w] = 1 + zones + regions + h
        for z in range(zones):  # giving an instance up
            row, idle, pick = now[warm + z], now[region[z]], choices[t, warm + z]
            for w in range(low, high + 1):
                if idle[w] < row[w]:
                    row[w] = idle[w]
                    pick[w] = 255
        for h in range(regions):
            row, idle, pick = now[warm + zones + h], now[h], choices[t, warm + zones + h]
            for w in range(low, high + 1):
                if idle[w] < row[w]:
                    row[w] = idle[w]
                    pick[w] = 255
        if high == work:
            for h in range(regions):
                if entry[h, work] <= best_first:
                    best_first, first_tick = entry[h, work], t
                    choices[t, 2 * regions + zones, 0] = entry_choice[h, work]
    return best_first, first_tick


def offline_optimum(market: Market, job: Ticks, *, checkpoint_gb: float = 0.0) -> Optimum:
    """Return the cheapest schedule that finishes the job in the market's first ``job.deadline`` ticks.

    Takes O(ticks * work * (zones + regions^2)) time; a quarter of a second for 8 zones, 2,400 ticks, 1,200 ticks of work.

    Raises
    ------
    InputError
        If the market is shorter than the deadline, or its zones and twice its regions are more than 253.
    """
    window = market.window(0, job.deadline)
    hours = market.tick_s / 3600
    region = window.regions
    regions, zones = int(region.max()) + 1, len(window.zones)
    if 2 * regions + zones > 253:
        raise InputError(f"the optimum handles zones and twice the regions up to 253, got {2 * regions + zones}; select fewer zones.")
    spot_usd = np.where(window.available, window.spot_usd_h * hours, np.inf)
    on_demand_zone = np.array([np.flatnonzero(region == h)[np.argmin(window.on_demand_usd_h[region == h])] for h in range(regions)])
    on_demand_usd = window.on_demand_usd_h[on_demand_zone] * hours
    first_of = np.array([np.flatnonzero(region == h)[0] for h in range(regions)])
    egress_usd = window.egress_usd_gb[np.ix_(first_of, first_of)] * checkpoint_gb
    cold_usd = _cold_cost(spot_usd, job.cold_start)
    choices = np.zeros((job.deadline, 2 * regions + zones + 1, job.work + 1), dtype=np.uint8)
    stop_usd, stops = _stop_overs(spot_usd, on_demand_usd, on_demand_zone, region)
    if job.cold_start < 2 or not _is_detour_cheaper(egress_usd):
        stop_usd = stop_usd[:0]  # a launch that lands within its first tick is in the recursion anyway
    cost, first = _backward(spot_usd, cold_usd, stop_usd, region, on_demand_usd, egress_usd, job.work, job.cold_start, choices)
    state, zone = _forward(choices, first, region, zones, on_demand_zone, stops, job)
    return Optimum(float(cost), state, zone)


def _cold_cost(spot_usd: np.ndarray, cold: int) -> np.ndarray:
    """Cost of a cold start from every tick on; inf where the capacity does not last."""
    ticks, zones = spot_usd.shape
    total = np.zeros((ticks, zones))
    for k in range(cold):
        total[: ticks - k] += spot_usd[k:]
        total[ticks - k :] = np.inf
    if cold == 0:
        total[~np.isfinite(spot_usd)] = np.inf
    return total


def _is_detour_cheaper(egress_usd: np.ndarray) -> bool:
    detour = (egress_usd[:, :, None] + egress_usd[None, :, :]).min(axis=1)
    return bool((detour < egress_usd - 1e-12).any())


def _stop_overs(
    spot_usd: np.ndarray, on_demand_usd: np.ndarray, on_demand_zone: np.ndarray, region: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest single tick in every region, shape (ticks, regions), and where: zone for spot, -1 - zone for on-demand."""
    usd = np.tile(on_demand_usd, (len(spot_usd), 1))
    where = np.tile(-1 - on_demand_zone, (len(spot_usd), 1))
    for zone, h in enumerate(region):
        is_cheaper = spot_usd[:, zone] < usd[:, h]
        usd[is_cheaper, h], where[is_cheaper, h] = spot_usd[is_cheaper, zone], zone
    return usd, where


def _forward(
    choices: np.ndarray, first: int, region: np.ndarray, zones: int, on_demand_zone: np.ndarray, stops: np.ndarray, job: Ticks
) -> tuple[np.ndarray, np.ndarray]:
    """Walk the choices from the first launch and write down what ran where."""
    state = np.zeros(job.deadline, dtype=np.int8)
    zone = np.full(job.deadline, -1, dtype=np.int16)
    regions = len(on_demand_zone)
    t, left, warm = first, job.work, regions

    def where(at: int) -> tuple[int, int]:
        return (1, at - warm) if at < warm + zones else (2, int(on_demand_zone[at - warm - zones]))

    def launch(choice: int, t: int) -> tuple[int, int]:
        at = warm + choice - 1
        state[t : t + job.cold_start], zone[t : t + job.cold_start] = where(at)
        return at, t + job.cold_start

    at, t = launch(int(choices[first, 2 * regions + zones, 0]), t)
    while left:
        choice = int(choices[t, at, left])
        if choice == 255:
            at = int(region[at - warm]) if at < warm + zones else at - warm - zones
        elif choice > zones + regions:
            at = choice - 1 - zones - regions
            stop = int(stops[t, at])
            state[t], zone[t] = (1, stop) if stop >= 0 else (2, -1 - stop)
            t += 1
        elif choice:
            at, t = launch(choice, t)
        elif at < warm:
            t += 1
        else:
            state[t], zone[t] = where(at)
            t, left = t + 1, left - 1
    return state[:t], zone[:t]
