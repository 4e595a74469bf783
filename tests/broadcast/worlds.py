"""Networks for tests, and the slow oracles: every tree, tried."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import strategies as st

from cloudchamber.broadcast import BroadcastSpec, Job


def spec(price, speed=None, *, egress=1e9, ingress=1e9, vms=2, vm_usd_h=0.54, shared=False):
    """A network from a price matrix; None or the diagonal is no link."""
    price = np.array([[np.inf if each is None else each for each in row] for row in price], dtype=float)
    np.fill_diagonal(price, np.inf)
    count = len(price)
    speed = np.ones((count, count)) if speed is None else np.array(speed, dtype=float)
    speed = np.where(np.isfinite(price), speed, 0.0)
    names = tuple(f"aws:r{i}" for i in range(count))
    limits = [np.full(count, float(each)) if np.isscalar(each) else np.array(each, dtype=float) for each in (egress, ingress)]
    return BroadcastSpec(names, price, speed, *limits, vms, vm_usd_h, shared)


def all_trees(network: BroadcastSpec, job: Job):
    """Every tree from the source to all destinations, useless branches left out."""
    regions = range(len(network.regions))
    others = [region for region in regions if region != job.source]
    for chosen in product(*[[None, *[a for a in regions if a != b and np.isfinite(network.price_usd_gb[a, b])]] for b in others]):
        parent = {b: a for b, a in zip(others, chosen, strict=True) if a is not None}
        if not set(job.destinations) <= set(parent):
            continue
        if any(b not in job.destinations and b not in parent.values() for b in parent):
            continue
        if all(reaches(b, parent, job.source) for b in parent):
            yield tuple((a, b) for b, a in parent.items())


def reaches(region, parent, source):
    for _ in range(len(parent) + 1):
        if region == source:
            return True
        if region not in parent:
            return False
        region = parent[region]
    return False


@st.composite
def worlds(draw, most=5):
    """A small network with all links, and a job on it."""
    count = draw(st.integers(3, most))
    cells = st.lists(st.lists(st.integers(1, 6), min_size=count, max_size=count), min_size=count, max_size=count)
    price = np.array(draw(cells)) / 10
    speed = np.array(draw(cells), dtype=float)
    limit = st.lists(st.integers(1, 12), min_size=count, max_size=count)
    network = spec(
        price, speed, egress=draw(limit), ingress=draw(limit), vm_usd_h=draw(st.sampled_from([0.54, 500.0])), shared=draw(st.booleans())
    )
    wanted = draw(st.lists(st.integers(1, count - 1), min_size=1, max_size=count - 1, unique=True))
    return network, Job(0, tuple(wanted), 30.0, draw(st.integers(1, 3)))
