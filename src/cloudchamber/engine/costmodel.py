"""The simulator's executor: a step takes what the cost model says, in virtual time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from cloudchamber.core.errors import InputError

from .model import CostModel
from .request import Request
from .seams import StepPlan, StepRecord, StepResult


class CostModelExecutor:
    """Draws no token, only says how many there are and how long the step took."""

    lookahead = 0

    def __init__(self, cost: CostModel) -> None:
        self.cost = cost

    def execute(self, plan: StepPlan) -> StepResult:
        """One token for every entry that reaches its last known one."""
        return StepResult([[0] if each.samples else [] for each in plan.entries], float(self.cost.seconds(*plan.load())))

    def durations(self, decodes: int, context: int, steps: int) -> np.ndarray:
        """Durations of steps in which the same sequences decode, shape (steps,): their context grows by one token each."""
        grown = context + decodes * np.arange(steps, dtype=np.int64)
        return np.asarray(self.cost.seconds(0, 0.0, decodes, grown), dtype=np.float64)

    def forget(self, request: Request) -> None:
        """Nothing is kept."""


def fit(records: Sequence[StepRecord]) -> CostModel:
    """Non-negative least squares of step durations on their load, each step weighted by 1 / its duration (relative error).

    Raises
    ------
    InputError
        If there are fewer than 10 steps.
    """
    from scipy.optimize import nnls

    if len(records) < 10:
        raise InputError(f"calibration needs at least 10 steps, got {len(records)}; run more requests first.")
    rows = np.array([(1.0, r.new, r.attended, r.decodes, r.context) for r in records])
    took = np.array([r.duration_s + r.overhead_s for r in records])
    scale = np.maximum(np.abs(rows).max(axis=0), 1e-12)
    found, _ = nnls(rows / scale / took[:, None], np.ones(len(took)))
    return CostModel(*(float(value) for value in found / scale))


def save(cost: CostModel, path: Path, note: str = "") -> None:
    """Write a cost model as JSON."""
    path.write_text(json.dumps({"note": note, **msgspec.to_builtins(cost)}, indent=1) + "\n")


def load(path: Path) -> CostModel:
    """Read a cost model.

    Raises
    ------
    InputError
        If the file is none.
    """
    try:
        found = json.loads(path.read_text())
        return CostModel(**{name: float(found[name]) for name in CostModel.__struct_fields__})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no cost model as calibrate() writes it: {error}") from None
