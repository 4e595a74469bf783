"""The generated twin: networks with the prices and speeds of the public grids, without their rows.

Regions are drawn with a provider and a continent. The price of a link depends on where it starts, on the provider it ends at and
on whether it stays on the continent: each region draws one of its kind's prices for each such goal, so that, as in the real grid,
some regions are dear to leave and others cheap. Speeds are log-normal by the same kinds.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("twin.json")
_WORDS = {  # what a region's name says about its continent; the first that fits
    "south-america": ("sa-", "southamerica", "brazil"),
    "oceania": ("australia", "ap-southeast-2"),
    "africa": ("af-", "southafrica"),
    "middle-east": ("me-", "uae", "qatar"),
    "asia": ("ap-", "asia", "india", "korea", "japan"),
    "europe": ("eu-", "europe", "germany", "norway", "sweden", "switzerland", "uk", "france"),
}
Statistics = dict[str, Any]


def provider(region: str) -> str:
    """Return whose region it is."""
    return region.split(":", maxsplit=1)[0]


def continent(region: str) -> str:
    """Return where a region lies, by its name; ``america`` if nothing else fits."""
    name = region.split(":", maxsplit=1)[-1]
    return next((each for each, words in _WORDS.items() if any(name.startswith(word) or word in name for word in words)), "america")


def kind(a: str, b: str) -> str:
    """Return the kind of a link: start provider and continent, goal provider, and whether it stays on the continent."""
    return f"{provider(a)} {continent(a)} {provider(b)} {'near' if continent(a) == continent(b) else 'far'}"


def calibrate(regions: tuple[str, ...], price: np.ndarray, speed: np.ndarray) -> Statistics:
    """Return what :func:`generate` needs: how many regions of each place, and each kind's prices and speeds."""
    prices: dict[str, Counter[float]] = defaultdict(Counter)
    speeds: dict[str, list[float]] = defaultdict(list)
    for i, a in enumerate(regions):
        for j, b in enumerate(regions):
            if i != j and np.isfinite(price[i, j]):
                prices[kind(a, b)][float(price[i, j])] += 1
                speeds[kind(a, b)].append(float(np.log(speed[i, j])))
    return {
        "places": dict(sorted(Counter(f"{provider(each)} {continent(each)}" for each in regions).items())),
        "kinds": {
            name: {
                "prices": sorted((round(each, 4), count) for each, count in prices[name].items()),
                "log_speed": [round(float(np.mean(speeds[name])), 3), round(float(np.std(speeds[name])), 3)],
            }
            for name in sorted(prices)
        },
        "log_speed_range": [round(float(edge(np.log(speed[speed > 0]))), 3) for edge in (np.min, np.max)],
    }


@cache
def statistics() -> Statistics:
    """The public grids' statistics, as packaged."""
    found: Statistics = json.loads(FILE.read_text())
    return found


def generate(count: int, rng: np.random.Generator) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return ``count`` regions, the prices between them (USD/GB) and the speeds of one VM (Gbit/s)."""
    known = statistics()
    weight = np.array(list(known["places"].values()), dtype=float)
    places = [list(known["places"])[i] for i in rng.choice(len(weight), size=count, p=weight / weight.sum())]
    regions = tuple(f"{place.split()[0]}:{place.split()[1]}-{i}" for i, place in enumerate(places))
    price, speed = np.full((count, count), np.inf), np.zeros((count, count))
    low, high = known["log_speed_range"]
    for i in range(count):
        drawn: dict[str, float] = {}
        for j in range(count):
            if i == j:
                continue
            nearness = "near" if places[i].split()[1] == places[j].split()[1] else "far"
            name = f"{places[i]} {places[j].split()[0]} {nearness}"
            facts = known["kinds"].get(name) or known["kinds"][f"{places[i]} {places[j].split()[0]} far"]
            if name not in drawn:
                values, counts = zip(*facts["prices"], strict=True)
                drawn[name] = float(rng.choice(values, p=np.array(counts) / sum(counts)))
            price[i, j] = drawn[name]
            speed[i, j] = np.exp(np.clip(rng.normal(*facts["log_speed"]), low, high))
    return regions, price, speed
