"""The integer program of a layer in a general solver (SciPy's HiGHS): slow, and written independently of ours."""

from __future__ import annotations

import numpy as np


def best_top_load(load: np.ndarray, slots: int, devices: int) -> float:
    """Least largest device load; z[e, c]: expert e has c replicas; x[e, c, g]: of which so many on device g."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    pairs = [(e, c) for e in range(len(load)) for c in range(1, slots - len(load) + 2)]
    n = len(pairs)
    size = n + n * devices + 1
    rows, low, high = [], [], []

    def add(lower: float, upper: float, **entries) -> None:
        row = np.zeros(size)
        for at, value in entries["entries"]:
            row[at] += value
        rows.append(row), low.append(lower), high.append(upper)

    def at(k: int, g: int) -> int:
        return n + k * devices + g

    for e in range(len(load)):
        add(1, 1, entries=[(k, 1.0) for k, (each, _) in enumerate(pairs) if each == e])
    for k, (_, c) in enumerate(pairs):
        add(0, 0, entries=[(k, -float(c)), *((at(k, g), 1.0) for g in range(devices))])
    for g in range(devices):
        add(slots // devices, slots // devices, entries=[(at(k, g), 1.0) for k in range(n)])
        add(-np.inf, 0, entries=[(size - 1, -1.0), *((at(k, g), load[e] / c) for k, (e, c) in enumerate(pairs))])
    upper = np.array([1.0] * n + [float(c) for _, c in pairs for _ in range(devices)] + [np.inf])
    cost = np.zeros(size)
    cost[-1] = 1.0
    found = milp(
        cost,
        constraints=LinearConstraint(np.array(rows), np.array(low), np.array(high)),
        bounds=Bounds(np.zeros(size), upper),
        integrality=np.array([1] * (size - 1) + [0]),
        options={"mip_rel_gap": 0.0},
    )
    return float(found.fun)
