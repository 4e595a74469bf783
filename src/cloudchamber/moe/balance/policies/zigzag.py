"""The deal an automated search found: sort the replicas, then deal them out in rows that turn at each end."""

from __future__ import annotations

import numpy as np

from cloudchamber.core.policy import Policy
from cloudchamber.moe.balance.model import Plan


class Zigzag(Policy):
    """Deal sorted replicas to the devices left to right, then right to left: no search for the least loaded device.

    All layers at once by index arithmetic. Replicas are counted as GreedyEPLB counts them, but never more than one per device;
    where the turn of a row would put two replicas of an expert on one device, one changes places with its nearest equal.

    References
    ----------
    "Barbarians at the Gate: How AI is Upending Systems Research" (the EPLB case study).
    """

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return a fresh plan; the previous one is ignored."""
        spec = self.spec_
        load = spec.checked(load)
        layer = np.arange(spec.layers)[:, None]
        count = self.replicas(load, spec.slots, spec.devices)
        share = load / count
        experts = np.argsort(-share, axis=1, kind="stable")  # replicas of one expert stay neighbours
        ends = np.cumsum(count[layer, experts], axis=1)
        replicas = np.zeros((spec.layers, spec.slots + 1), dtype=np.int64)
        replicas[layer, ends] = 1
        dealt = experts[layer, np.cumsum(replicas, axis=1)[:, : spec.slots]]

        rows = np.array(dealt.reshape(spec.layers, spec.slots_per_device, spec.devices))
        rows[:, 1::2] = rows[:, 1::2, ::-1]
        separate(rows, share)
        return Plan(rows.transpose(0, 2, 1).reshape(spec.layers, spec.slots))

    def replicas(self, load: np.ndarray, slots: int, devices: int) -> np.ndarray:
        """Give spare slots one by one to the largest load per replica; at most ``devices`` replicas each."""
        load = np.where(load.any(axis=1, keepdims=True), load, 1.0)  # without any load, spread
        count = np.ones(load.shape, dtype=np.int64)
        share, layer = load.copy(), np.arange(len(load))
        for _ in range(slots - load.shape[1]):
            hottest = np.argmax(share, axis=1)
            count[layer, hottest] += 1
            replicas = count[layer, hottest]
            share[layer, hottest] = np.where(replicas < devices, load[layer, hottest] / replicas, -1.0)
        return count


def separate(rows: np.ndarray, share: np.ndarray) -> None:
    """Swap within a row, nearest load first, until no device (column) holds an expert twice; one swap in each layer at a time."""
    earlier = np.tri(rows.shape[1], k=-1, dtype=bool)[:, :, None]
    layer = np.arange(len(rows))
    for _ in range(rows[0].size):
        twice = ((rows[layer, :, None] == rows[layer, None]) & earlier).any(axis=2)
        still = twice.any(axis=(1, 2))
        layer, twice = layer[still], twice[still]
        if not len(layer):
            return
        row, device = np.unravel_index(twice.reshape(len(layer), -1).argmax(axis=1), twice.shape[1:])
        expert, others = rows[layer, row, device], rows[layer, row]
        lacks = ~(rows[layer] == expert[:, None, None]).any(axis=1)  # devices that could take it
        fits = lacks & ~(others[:, None] == rows[layer, :, device][:, :, None]).any(axis=1)  # and whose expert this one could
        fits = np.where(fits.any(axis=1, keepdims=True), fits, lacks)
        away = np.abs(share[layer[:, None], others] - share[layer, expert][:, None])
        other = np.where(fits, away, np.inf).argmin(axis=1)
        rows[layer, row, device], rows[layer, row, other] = rows[layer, row, other], expert
