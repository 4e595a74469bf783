"""Change the plan in place a little, where a moved expert buys the most balance."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Integer, Policy, Real
from cloudchamber.moe.balance.model import Plan
from cloudchamber.moe.balance.policies.local_search import LocalSearch


class Incremental(Policy):
    """Relieve the hottest device by one swap or one replica at a time, while that is worth the weights it moves.

    A swap sends two experts; turning a spare replica of one expert into one of a hot expert sends one. In each layer the change with
    the largest gain per expert sent is made, until none gains ``min_gain`` of the mean device load per expert or ``max_moves`` are sent.
    The first plan is LocalSearch's. Choose it where moving weights takes time: it moves a small part of what a fresh plan moves.

    Parameters
    ----------
    max_moves : int, default 24
        Most experts sent in each layer and plan.
    min_gain : float, default 0.02
        Least gain per expert sent: how much the hottest device must be relieved, in mean device loads.
    """

    _constraints = {"max_moves": Integer(0), "min_gain": Real(0, 1e9)}

    def __init__(self, max_moves: int = 24, *, min_gain: float = 0.02) -> None:
        self.max_moves = max_moves
        self.min_gain = min_gain

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return the previous plan with few changes."""
        spec = self.spec_
        load = spec.checked(load)
        if prev is None:
            first = LocalSearch()
            first.reset(spec, self.rng_)
            return first.plan(load, None)
        table = np.array(prev.phy2log, dtype=np.int64, order="C")
        count = prev.count(spec.experts)
        for layer in range(spec.layers):
            _relieve(table[layer], load[layer], count[layer], spec.slots_per_device, self.max_moves, self.min_gain)
        return Plan(table)


@njit
def _relieve(slots: np.ndarray, load: np.ndarray, count: np.ndarray, room: int, sends: int, min_gain: float) -> None:
    """Make the best change of the hottest device, in place, while there is one."""
    devices = len(slots) // room
    holds = np.zeros((devices, len(load)), dtype=np.bool_)
    for slot in range(len(slots)):
        holds[slot // room, slots[slot]] = True
    least = max(min_gain * load.sum() / devices, 1e-9 * load.max())
    while sends > 0:
        share = load / count
        weight = share[slots].reshape(-1, room).sum(axis=1)
        hot = int(np.argmax(weight))
        best, mine, theirs, is_swap = least, -1, -1, False
        for i in range(hot * room, (hot + 1) * room):
            expert = slots[i]
            relief = share[expert] - load[expert] / (count[expert] + 1)  # of every device that holds it, by one more replica
            for j in range(len(slots)):
                device, other = j // room, slots[j]
                if device == hot or other == expert or holds[device, expert]:
                    continue
                given = share[expert] - share[other]
                if sends >= 2 and given > 0 and not holds[hot, other]:
                    gain = min(given, weight[hot] - weight[device] - given) / 2
                    if gain > best:
                        best, mine, theirs, is_swap = gain, i, j, True
                if count[other] > 1:
                    extra = load[other] / (count[other] - 1) - share[other]  # of every device that keeps a replica of it
                    grown = weight[device] - share[other] + share[expert] - relief
                    gain = min(relief - (extra if holds[hot, other] else 0.0), weight[hot] - grown)
                    if gain > best and _stays_below(weight, holds[:, other], holds[:, expert], device, extra, relief, weight[hot] - gain):
                        best, mine, theirs, is_swap = gain, i, j, False
        if mine < 0:
            return
        device, expert, other = theirs // room, slots[mine], slots[theirs]
        slots[theirs] = expert
        holds[device, expert], holds[device, other] = True, False
        if is_swap:
            slots[mine] = other
            holds[hot, other], holds[hot, expert] = True, False
            sends -= 2
        else:
            count[expert] += 1
            count[other] -= 1
            sends -= 1


@njit
def _stays_below(
    weight: np.ndarray, with_other: np.ndarray, with_expert: np.ndarray, device: int, extra: float, relief: float, limit: float
) -> bool:
    """Whether devices that keep a replica of the other expert stay below the limit once each carries more of it."""
    for each in range(len(weight)):
        if each != device and with_other[each] and weight[each] + extra - (relief if with_expert[each] else 0.0) > limit:
            return False
    return True
