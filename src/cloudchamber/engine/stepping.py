"""Stepping an engine in real time: a policy that lets nothing run is told apart from one that waits, and nothing is left behind."""

from __future__ import annotations

import time
from collections.abc import Iterable

from cloudchamber.core.errors import CandidateError

from .core import EngineCore
from .policies.fcfs import FCFS
from .request import Finish, Request
from .seams import Progress

STALL_S = 5.0  # a policy that lets nothing run for so long has failed
IDLE_S = 0.001


class Stepper:
    """Steps an engine that has requests; CandidateError where the policy lets nothing run."""

    def __init__(self, core: EngineCore) -> None:
        self.core, self._moved_s = core, time.monotonic()

    def step(self) -> list[Progress]:
        """One step."""
        if news := self.core.step():
            self._moved_s = time.monotonic()
        elif time.monotonic() - self._moved_s > STALL_S:
            raise CandidateError(f"{self.core.waiting} requests wait, and the policy lets none run", "protocol")
        else:
            time.sleep(IDLE_S)  # the policy may be waiting for a better moment
        return news


def abandon(core: EngineCore, requests: Iterable[Request], finish: Finish = "abort") -> None:
    """End those of the requests that are still in the engine, whatever the policy says."""
    policy, core.policy = core.policy, FCFS()
    for r in requests:
        core.abort(r.id, finish)
    core.policy = policy
