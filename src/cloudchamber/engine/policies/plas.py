"""The program that was served least first."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from cloudchamber.core.policy import Policy, Real
from cloudchamber.engine.model import CACHED, ReqView, Retain, SchedulerPolicy, View

PROGRAMS = 4096  # programs remembered


class PLAS(Policy, SchedulerPolicy):
    """Serve requests of the program that has had least service so far: Autellix's program-level attained service.

    A program's service is the time its requests ran, until they ended or were preempted. Programs fall through queues whose bounds
    double, and within a queue requests go by arrival; one that has waited ``starvation`` times as long as its program was served rises
    to the first queue.

    Parameters
    ----------
    quantum_s : float, default 1.0
        Service that the first queue allows.
    starvation : float, default 20.0
        Ratio of waiting to service at which a request is moved up.

    Reference: "Autellix: An Efficient Serving Engine for LLM Agents as General Programs".
    """

    _constraints = {"quantum_s": Real(0, 1e6, strict=True), "starvation": Real(0, 1e9, strict=True)}

    def __init__(self, quantum_s: float = 1.0, *, starvation: float = 20.0) -> None:
        self.quantum_s = quantum_s
        self.starvation = starvation

    def reset(self, spec: Any, rng: Any) -> None:
        """Forget what was served."""
        super().reset(spec, rng)
        self.attained_: OrderedDict[str, float] = OrderedDict()
        self.admitted_: dict[int, float] = {}

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """By queue, preempted ones first, then by arrival."""
        return [r.id for r in sorted(waiting, key=lambda r: (self._queue(view.now, r), not r.is_preempted, r.arrival, r.id))]

    def victim(self, view: View, running: Sequence[ReqView]) -> int | None:
        """The last admitted; what it was served so far counts."""
        self._charge(view.now, running[-1])
        return running[-1].id

    def on_admit(self, view: View, r: ReqView) -> None:
        """Start the request's clock."""
        self.admitted_[r.id] = view.now

    def on_finish(self, view: View, r: ReqView) -> Retain:
        """Charge the program for the time since the request was admitted last; forget the program after its last one."""
        self._charge(view.now, r)
        if r.is_last and r.program is not None:
            self.attained_.pop(r.program, None)
        return CACHED

    def _charge(self, now: float, r: ReqView) -> None:
        served_s = now - self.admitted_.pop(r.id, now)
        if r.program is not None:
            self.attained_[r.program] = self.attained_.pop(r.program, 0.0) + served_s
            if len(self.attained_) > PROGRAMS:
                self.attained_.popitem(last=False)

    def _queue(self, now: float, r: ReqView) -> int:
        attained_s = self.attained_.get(r.program, 0.0) if r.program is not None else 0.0
        if attained_s < self.quantum_s or now - r.arrival >= self.starvation * attained_s:
            return 0
        return 1 + int(math.log2(attained_s / self.quantum_s))
