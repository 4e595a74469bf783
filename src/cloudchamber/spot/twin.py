"""Generated markets: a seedable twin of every public trace, and the generator for markets of one's own.

Each zone alternates independently between up and down: up-times are truncated Pareto (many short, few very long), down-times
log-normal, both calibrated to the zone's real runs; prices are constant, or step by up to ``price_step`` around the zone's mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .market import Market
from .model import Zone
from .traces import egress_matrix

CAP_S = 100 * 3600.0


@dataclass(frozen=True)
class ZoneStatistics:
    """What the generator needs to know of a zone.

    Parameters
    ----------
    name, region : str
    spot_usd_h, on_demand_usd_h : float
        Mean spot price; on-demand price.
    up_alpha : float
        Exponent of the Pareto up-times, truncated to [min_s, cap_s]. 0 means always up.
    min_s, cap_s : float
        Shortest and longest up-time in seconds.
    down_mean_s, down_sigma : float
        Mean of the log-normal down-times, and standard deviation of their logarithm. A mean of 0 means never down.
    up_share : float
        Share of time up; says how the first state is drawn.
    price_step : float
        Largest relative step of the price around its mean.
    """

    name: str
    region: str
    spot_usd_h: float
    on_demand_usd_h: float
    up_alpha: float
    min_s: float
    cap_s: float
    down_mean_s: float
    down_sigma: float
    up_share: float
    price_step: float = 0.0


def generate(
    zones: Sequence[ZoneStatistics],
    *,
    ticks: int,
    tick_s: float,
    rng: np.random.Generator,
    egress_usd_gb: dict[Any, float],
    diurnal: float = 0.0,
) -> Market:
    """Return a generated market.

    Parameters
    ----------
    zones : sequence of ZoneStatistics
    ticks : int
    tick_s : float
        Seconds.
    rng : numpy.random.Generator
    egress_usd_gb : dict
        (from region, to region) -> USD/GB; key None is the default.
    diurnal : float, default 0
        Share of up-time that is lost during the busiest hours of the day (a sine over 24 h gates the zone).
    """
    up = np.stack([_availability(zone, ticks, tick_s, rng) for zone in zones], axis=1)
    prices = np.stack([_prices(zone, ticks, tick_s, rng) for zone in zones], axis=1)
    if diurnal:
        hour = (np.arange(ticks) * tick_s // 3600).astype(int)
        load = (1 + np.sin(2 * np.pi * np.arange(ticks) * tick_s / 86400)) / 2
        up &= rng.random((hour[-1] + 1, len(zones)))[hour] >= diurnal * load[:, None]
    nouns = tuple(Zone(zone.name, zone.region, zone.on_demand_usd_h) for zone in zones)
    return Market(nouns, tick_s, up, prices, egress_matrix(nouns, egress_usd_gb))


def _availability(zone: ZoneStatistics, ticks: int, tick_s: float, rng: np.random.Generator) -> np.ndarray:
    out = np.zeros(ticks, dtype=bool)
    if zone.up_share in (0.0, 1.0):
        out[:] = zone.up_share == 1.0
        return out
    is_up, at = rng.random() < zone.up_share, 0.0
    while at < ticks:
        length = (_pareto(zone, rng) if is_up else _log_normal(zone, rng)) / tick_s
        if at == 0.0:
            length *= rng.random()  # the trace begins somewhere inside a run
        end = at + max(length, 1.0)
        if is_up:
            out[round(at) : round(end)] = True
        at, is_up = end, not is_up
    return out


def _pareto(zone: ZoneStatistics, rng: np.random.Generator) -> float:
    low, high, alpha = zone.min_s, zone.cap_s, zone.up_alpha
    share = 1 - (low / high) ** alpha
    return float(low * (1 - rng.random() * share) ** (-1 / alpha))


def _log_normal(zone: ZoneStatistics, rng: np.random.Generator) -> float:
    mu = np.log(zone.down_mean_s) - zone.down_sigma**2 / 2
    return float(min(rng.lognormal(mu, zone.down_sigma), 20 * zone.down_mean_s))


def _prices(zone: ZoneStatistics, ticks: int, tick_s: float, rng: np.random.Generator) -> np.ndarray:
    out = np.full(ticks, zone.spot_usd_h)
    if zone.price_step:
        every = max(round(6 * 3600 / tick_s), 1)  # a step about every six hours
        steps = 1 + zone.price_step * (2 * rng.random(-(-ticks // every)) - 1)
        out = zone.spot_usd_h * np.repeat(steps, every)[:ticks]
    return out


def calibrate(market: Market) -> list[ZoneStatistics]:
    """Return the statistics of every zone of a real market: exponent and cap of its up-times, mean and spread of its down-times."""
    return [_calibrate_zone(market, i) for i in range(len(market.zones))]


def _calibrate_zone(market: Market, index: int) -> ZoneStatistics:
    zone, up, tick_s = market.zones[index], market.available[:, index], market.tick_s
    lengths, states = runs(up)
    ups, downs = lengths[states] * tick_s, lengths[~states] * tick_s
    share = float(up.mean())
    low = float(max(tick_s, ups.min())) if len(ups) else tick_s
    cap = float(min(max(ups.max(initial=low) * 1.25, 2 * low), CAP_S))
    prices = market.spot_usd_h[:, index]
    mean = float(prices.mean())
    return ZoneStatistics(
        name=zone.name,
        region=zone.region,
        spot_usd_h=round(mean, 4),
        on_demand_usd_h=round(zone.on_demand_usd_h, 4),
        up_alpha=round(_alpha_for(float(ups.mean()), low, cap), 4) if len(ups) else 0.0,
        min_s=low,
        cap_s=round(cap),
        down_mean_s=round(float(downs.mean()), 1) if len(downs) else 0.0,
        down_sigma=round(float(np.clip(np.log(downs).std(), 0.1, 2.0)), 3) if len(downs) else 0.0,
        up_share=round(share, 4),
        price_step=round(float((prices.max() - prices.min()) / (2 * mean)), 4),
    )


def _alpha_for(mean_s: float, low: float, cap: float) -> float:
    """Exponent at which the truncated Pareto has this mean, by bisection."""
    small, large = -3.0, 8.0
    for _ in range(60):
        alpha = (small + large) / 2
        small, large = (alpha, large) if _pareto_mean(alpha, low, cap) > mean_s else (small, alpha)
    return alpha if abs(alpha) > 1e-3 else 1e-3


def _pareto_mean(alpha: float, low: float, cap: float) -> float:
    if abs(alpha) < 1e-6 or abs(alpha - 1) < 1e-6:
        alpha += 1e-5
    return float(alpha / (1 - alpha) * (cap ** (1 - alpha) - low ** (1 - alpha)) / (low**-alpha - cap**-alpha))


def runs(up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and states of the runs of a boolean array."""
    edges = np.flatnonzero(np.diff(up.astype(np.int8))) + 1
    starts = np.concatenate([[0], edges])
    return np.diff(np.append(starts, len(up))), up[starts]


@dataclass(frozen=True)
class Twin:
    """A calibrated stand-in for one public market."""

    tick_s: float
    ticks: int
    egress_usd_gb: float
    zones: tuple[ZoneStatistics, ...]

    def market(self, rng: np.random.Generator) -> Market:
        """Generate it."""
        table: dict[Any, float] = {None: self.egress_usd_gb}
        return generate(self.zones, ticks=self.ticks, tick_s=self.tick_s, rng=rng, egress_usd_gb=table)

    @classmethod
    def of(cls, market: Market) -> Twin:
        """Calibrate it to a real market."""
        between = market.egress_usd_gb[market.regions[:, None] != market.regions[None, :]]
        return cls(market.tick_s, market.ticks, round(float(between.mean()), 4) if between.size else 0.0, tuple(calibrate(market)))


@cache
def twins() -> dict[str, Twin]:
    """The calibrated twins in the package, one per public market."""
    content = json.loads((Path(__file__).parent / "twins.json").read_text())
    return {
        name: Twin(each["tick_s"], each["ticks"], each["egress_usd_gb"], tuple(ZoneStatistics(**zone) for zone in each["zones"]))
        for name, each in content.items()
    }


def write_twins(markets: dict[str, Market], path: Path) -> None:
    """Calibrate and store twins (statistics only, no trace)."""
    content = {name: asdict(Twin.of(market)) for name, market in markets.items()}
    path.write_text(json.dumps(content, indent=1) + "\n")
