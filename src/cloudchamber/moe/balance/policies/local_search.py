"""Swap experts between the hottest device and any other until nothing helps."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Integer, Policy
from cloudchamber.moe.balance.model import ClusterSpec, Plan
from cloudchamber.moe.balance.policies.zigzag import Zigzag


class LocalSearch(Policy):
    """Deal as Zigzag does, then repair: the best swap of the hottest device, again and again.

    Choose it where the balance of the window that was seen counts for more than the plan's time: it ends closer to even than any
    greedy. Where the next window differs much from the last, that gain is lost in the difference.

    Parameters
    ----------
    moves : int, default 200
        Most swaps in each layer.
    """

    _constraints = {"moves": Integer(0)}

    def __init__(self, moves: int = 200) -> None:
        self.moves = moves

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return a fresh plan; the previous one is ignored."""
        spec = self.spec_
        load = spec.checked(load)
        table = np.array(start(spec, load).phy2log)
        share = load / Plan(table).count(spec.experts)
        for layer in range(spec.layers):
            _swap(table[layer], share[layer], spec.slots_per_device, self.moves)
        return Plan(table)


def start(spec: ClusterSpec, load: np.ndarray) -> Plan:
    """The plan of Zigzag: no expert twice on a device."""
    zigzag = Zigzag()
    zigzag.reset(spec, None)
    return zigzag.plan(load, None)


@njit
def _swap(slots: np.ndarray, share: np.ndarray, room: int, moves: int) -> None:
    """Lower the largest device load by swaps, in place; no expert comes twice to a device."""
    weight = share[slots].reshape(-1, room).sum(axis=1)
    for _ in range(moves):
        hot = int(np.argmax(weight))
        least, best, partner = weight[hot] * (1 - 1e-9), -1, -1
        for i in range(hot * room, (hot + 1) * room):
            for j in range(len(slots)):
                cold = j // room
                given = share[slots[i]] - share[slots[j]]
                top = max(weight[hot] - given, weight[cold] + given)
                if cold == hot or given <= 0 or top >= least:
                    continue
                is_twice = False
                for k in range(room):
                    is_twice |= slots[cold * room + k] == slots[i] or slots[hot * room + k] == slots[j]
                if not is_twice:
                    least, best, partner = top, i, j
        if best < 0:
            return
        given = share[slots[best]] - share[slots[partner]]
        weight[hot] -= given
        weight[partner // room] += given
        slots[best], slots[partner] = slots[partner], slots[best]
