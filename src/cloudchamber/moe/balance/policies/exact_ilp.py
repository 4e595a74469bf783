"""The best plan for the load given: an integer program for small layers, to see how far the others are from it."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Integer, Policy
from cloudchamber.moe.balance.model import Plan
from cloudchamber.moe.balance.policies.local_search import LocalSearch

MOST_SPARE = 8  # slots beyond one for each expert


class ExactILP(Policy):
    """Solve every layer to the optimum: no plan has a smaller largest device load on the load given.

    A yardstick for layers of few experts and up to 8 spare slots; larger layers get LocalSearch's plan. It may put two replicas on
    one device, which can be the best use of a slot that has to hold something. With c[e] replicas of expert e, x[e, g] of them on
    device g, it solves::

        min M   with   sum_g x[e, g] = c[e] >= 1,   sum_e x[e, g] = slots / devices,   sum_e load[e] / c[e] x[e, g] <= M

    by trying every c and filling devices one by one, heaviest replica first, as long as that can beat the best plan so far.
    General solvers take minutes where this takes milliseconds, since all devices are alike and the linear relaxation is just the mean.

    Parameters
    ----------
    max_experts : int, default 16
        Largest layer it solves; time grows steeply beyond.
    """

    _constraints = {"max_experts": Integer(1)}

    def __init__(self, max_experts: int = 16) -> None:
        self.max_experts = max_experts

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return the optimal plan for the load; the previous one is ignored."""
        spec = self.spec_
        load = spec.checked(load)
        search = LocalSearch()
        search.reset(spec, self.rng_)
        first = search.plan(load, None)
        if spec.experts > self.max_experts or spec.slots - spec.experts > MOST_SPARE:
            return first
        top = first.device_load(load, spec).max(axis=1)
        return Plan(np.array([best_layer(load[i], spec.devices, first.phy2log[i], top[i]) for i in range(spec.layers)]))


@njit
def best_layer(load: np.ndarray, devices: int, slots: np.ndarray, top: float) -> np.ndarray:
    """Return the expert of each slot with the smallest largest device load, beginning from a plan whose largest is ``top``."""
    experts, spare = len(load), len(slots) - len(load)
    best = slots.copy()
    extra = np.zeros(spare, dtype=np.int64)  # experts that get another replica, in rising order: every multiset in turn
    while True:
        count = np.ones(experts, dtype=np.int64)
        for expert in extra:
            count[expert] += 1
        share = load / count
        if share.max() < top:
            order = np.argsort(-share, kind="mergesort")
            replicas = np.repeat(order, count[order])
            items = share[replicas]
            least, device = _fill(items, devices, top)
            if least < top:
                top = least
                best = replicas[np.argsort(device, kind="mergesort")]
        at = spare - 1
        while at >= 0 and extra[at] == experts - 1:
            at -= 1
        if at < 0:
            return best
        extra[at:] = extra[at] + 1


@njit
def _fill(items: np.ndarray, devices: int, best: float) -> tuple[float, np.ndarray]:
    """Fill devices in turn in every way that beats ``best``: the least largest load found, and the device of each (sorted) item."""
    count = len(items)
    room = count // devices
    found, pick, used = np.zeros(count, dtype=np.int64), np.full(count, -1), np.zeros(count, dtype=np.bool_)
    weight = np.zeros(count + 1)  # of the present device, after each pick
    rest, top = np.full(devices + 1, items.sum()), np.zeros(devices + 1)  # before each device: what is left, the largest so far
    depth = 0
    while depth >= 0:
        at, place, limit = depth // room, depth % room, best * (1 - 1e-12)
        before = pick[depth]
        tried = -1.0
        if before >= 0:
            used[before], tried = False, items[before]
        i = count
        if place == 0:  # a device begins with the heaviest item left: devices are alike
            i = 0 if before < 0 else count
            while i < count and used[i]:
                i += 1
        elif top[at] < limit:
            i = max(before, pick[depth - 1]) + 1
            so_far, needed = weight[depth - 1], rest[at] - best * (devices - at - 1)  # more than the others could carry
            while i < count and (used[i] or items[i] == tried or so_far + items[i] >= limit):
                i += 1
            if i < count and so_far + (room - place) * items[i] < needed:
                i = count
        if i == count:
            pick[depth] = -1
            depth -= 1
            continue
        used[i], pick[depth] = True, i
        weight[depth] = items[i] + (weight[depth - 1] if place else 0.0)
        if place == room - 1:
            top[at + 1], rest[at + 1] = max(top[at], weight[depth]), rest[at] - weight[depth]
            if at == devices - 1:
                if top[devices] < limit:
                    best = top[devices]
                    for k in range(count):
                        found[pick[k]] = k // room
                continue
            if rest[at + 1] >= limit * (devices - at - 1) or top[at + 1] >= limit:
                continue
        depth += 1
    return best, found
