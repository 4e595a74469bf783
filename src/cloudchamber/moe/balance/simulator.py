"""The verified world: load comes window by window, a plan is judged on the window after those it was made from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from cloudchamber.core.errors import CandidateError, InputError

from .model import BalancePolicy, ClusterSpec, Plan
from .predictors import Last, Predictor
from .triggers import BalanceState, Every, Trigger


@dataclass(frozen=True)
class StepCost:
    """Seconds of a forward step: every layer waits for its slowest device.

    ::

        sum over layers of  max over devices (token_s tokens + slot_s slots that got any) + sent_s max tokens + layer_s

    Parameters
    ----------
    token_s : float
        One token through one expert: 88 MFLOP at half the peak of an H100 in FP8.
    slot_s : float
        Reading one expert's weights: 44 MB at 3.35 TB/s.
    sent_s : float
        One token to its expert and back: 7,168 values in FP8 there and BF16 back, at 50 GB/s.
    layer_s : float
        Latency of a layer, of attention and of the collective.
    """

    token_s: float = 1.8e-7
    slot_s: float = 1.3e-5
    sent_s: float = 4.3e-7
    layer_s: float = 2e-5

    def seconds(self, device_tokens: np.ndarray, slots_used: np.ndarray) -> float:
        """Seconds of one step; tokens per step and slots used have the shape (layers, devices)."""
        slowest = (self.token_s * device_tokens + self.slot_s * slots_used).max(axis=1)
        return float((slowest + self.sent_s * device_tokens.max(axis=1) + self.layer_s).sum())


@dataclass(frozen=True, eq=False)
class Run:
    """What became of a trial, window by window.

    Parameters
    ----------
    plans : tuple of Plan
        The plan each window was served with; the same object where nothing changed.
    device_load : ndarray of shape (windows, layers, devices)
    slot_top : ndarray of shape (windows, layers)
        Largest load of a slot.
    step_s, move_s : ndarray of shape (windows,)
        Seconds of a step; seconds of moving weights before the window.
    sent : ndarray of shape (windows,)
        Experts sent between devices before the window. The first plan is loaded, not moved.
    asked : int
        Plans the policy made.
    plan_s : float
        Seconds by the world's clock in the policy: ``reset`` and all plans.
    """

    plans: tuple[Plan, ...]
    device_load: np.ndarray
    slot_top: np.ndarray
    step_s: np.ndarray
    move_s: np.ndarray
    sent: np.ndarray
    asked: int
    plan_s: float


class Simulator:
    """Serves a load history with the plans of a policy.

    Parameters
    ----------
    history : ndarray of int, shape (windows + 1, layers, experts)
        Tokens of each expert. The first window is only observed; a plan made from windows 0 to t serves window t + 1.
    spec : ClusterSpec
    predictor : Predictor
        Makes the load a policy is shown of the windows that are over.
    trigger : Trigger
        Says when it is asked again.
    cost : StepCost
    """

    def __init__(
        self,
        history: np.ndarray,
        spec: ClusterSpec,
        *,
        predictor: Predictor = Last(),  # noqa: B008 (frozen)
        trigger: Trigger = Every(),  # noqa: B008 (frozen)
        cost: StepCost = StepCost(),
    ) -> None:
        if history.ndim != 3 or history.shape[1:] != (spec.layers, spec.experts) or len(history) < 2:
            raise InputError(
                f"a history needs the shape (windows, layers, experts), two windows or more of ({spec.layers}, {spec.experts}), "
                f"got {history.shape}."
            )
        self.history, self.spec, self.predictor, self.trigger, self.cost = history, spec, predictor, trigger, cost

    def run(self, policy: BalancePolicy, rng: np.random.Generator) -> Run:
        """Run a policy through the history.

        Raises
        ------
        CandidateError
            If the policy raises or its plan is not valid.
        """
        clock = _Clock()
        clock.call(policy.reset, msgspec.structs.replace(self.spec), rng)
        plan: Plan | None = None
        served: list[Plan] = []
        facts: list[tuple[Any, ...]] = []
        asked = since = 0
        for t in range(len(self.history) - 1):
            sent, move_s = 0, 0.0
            if plan is None or self.trigger.should(self._state(facts, since)):
                load = self.predictor.predict(self.history[: t + 1].copy())
                shown = None if plan is None else Plan(plan.phy2log.copy())
                new = checked(clock.call(policy.plan, load, shown), self.spec)
                asked, since = asked + 1, 0
                if plan is not None:
                    new = new.aligned(plan, self.spec)
                    sent, move_s = self._moved(new.moves(plan, self.spec))
                plan = new
            since += 1
            served.append(plan)
            facts.append((*self._served(plan, self.history[t + 1]), sent, move_s))
        device_load, slot_top, step_s, sent_all, move_all = zip(*facts, strict=True)
        return Run(
            tuple(served),
            np.array(device_load),
            np.array(slot_top),
            np.array(step_s),
            np.array(move_all),
            np.array(sent_all),
            asked,
            clock.seconds,
        )

    def replay(self, plans: Sequence[Plan]) -> Run:
        """The run of given plans, one for each window."""
        return self.run(_Given(plans), np.random.default_rng(0))

    def _served(self, plan: Plan, load: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Device loads, largest slot load and step time of one window."""
        spec = self.spec
        slots = plan.slot_load(load, spec)
        by_device = slots.reshape(spec.layers, spec.devices, -1)
        devices = by_device.sum(axis=2)
        return devices, slots.max(axis=1), self.cost.seconds(devices / spec.steps, (by_device > 0).sum(axis=2))

    def _moved(self, sends: np.ndarray) -> tuple[int, float]:
        """Number of sends and their seconds: devices receive in parallel, layer after layer."""
        spec = self.spec
        received = np.zeros((spec.layers, spec.devices), dtype=np.int64)
        np.add.at(received, (sends[:, 0], sends[:, 3]), 1)
        return len(sends), float(received.max(axis=1).sum()) * spec.expert_mb / 1000 / spec.bandwidth_gb_s

    def _state(self, facts: list[tuple[Any, ...]], since: int) -> BalanceState:
        devices, _, step_s, *_ = facts[-1]
        mean = devices.mean(axis=1, keepdims=True)
        full = np.full(devices.shape, self.spec.slots_per_device)
        even_s = self.cost.seconds(np.broadcast_to(mean, devices.shape) / self.spec.steps, full)
        top = devices.max(axis=1).sum()
        moves = [move_s for *_, sent, move_s in facts if sent]
        balance = float(mean.sum() / top) if top else 1.0
        return BalanceState(len(facts), since, balance, step_s, even_s, self.spec.steps, moves[-1] if moves else 0.0)


def checked(plan: Any, spec: ClusterSpec) -> Plan:
    """Return the world's own copy of a policy's plan; nothing but its ``phy2log`` is taken over.

    Raises
    ------
    CandidateError
        If it is not a valid plan.
    """
    if type(plan) is not Plan:
        raise CandidateError(f"plan() must return a Plan, got {type(plan).__name__}.")
    try:
        plan.check(spec)
    except InputError as error:
        raise CandidateError(f"not a valid plan: {error}") from None
    return Plan(np.array(plan.phy2log, dtype=np.int64, order="C"))


class _Clock:
    """Adds up the seconds spent in a policy; only the world reads it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def call(self, verb: Any, *args: Any) -> Any:
        start = time.perf_counter()
        try:
            return verb(*args)
        finally:
            self.seconds += time.perf_counter() - start


class _Given:
    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plans = iter(plans)

    def reset(self, spec: ClusterSpec, rng: np.random.Generator) -> None:
        """Nothing to learn."""

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """The next one."""
        return next(self.plans)


def audit(run: Run, world: Simulator) -> tuple[str, ...]:
    """Recompute a finished run from its plans alone, slot by slot; return what does not hold, in words."""
    wrong = []
    spec = world.spec
    for t, plan in enumerate(run.plans):
        count = plan.count(spec.experts)
        if not ((count >= 1).all() and (count.sum(axis=1) == spec.slots).all()):
            wrong.append(f"window {t}: an expert without a slot, or slots that do not add up")
        tokens = run.device_load[t].sum(axis=1)
        if not np.allclose(tokens, world.history[t + 1].sum(axis=1), rtol=1e-9):
            wrong.append(f"window {t}: tokens were lost or made up")
    return tuple(wrong)
