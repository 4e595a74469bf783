"""The real world: the same requests, served by a real executor as they arrive."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable

from cloudchamber.core.errors import CandidateError

from .core import EngineCore
from .policies.fcfs import FCFS
from .request import Request
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


def abandon(core: EngineCore, requests: Iterable[Request]) -> None:
    """End those of the requests that are still in the engine, whatever the policy says."""
    policy, core.policy = core.policy, FCFS()
    for r in requests:
        core.abort(r.id)
    core.policy = policy


def replay(core: EngineCore, arrivals: Iterable[Request], more: Callable[[Request], Iterable[Request]] | None = None) -> list[Request]:
    """Serve requests in real time, and return them in order of finish.

    Parameters
    ----------
    core : EngineCore
        With a :class:`RealClock`, idle.
    arrivals : iterable of Request
        ``arrival`` counts from now, in seconds; it is set to the engine's clock.
    more : callable (finished Request) -> requests, optional
        What a finish brings about; arrivals on the engine's clock.
    """
    began = core.clock.now()
    queue = []
    for i, r in enumerate(arrivals):
        r.arrival += began
        queue.append((r.arrival, i, r))
    heapq.heapify(queue)
    count, finished = len(queue), []
    while queue or core.requests:
        while queue and queue[0][0] <= core.clock.now():
            core.add(heapq.heappop(queue)[2])
        if not core.requests:
            time.sleep(max(0.0, queue[0][0] - core.clock.now()))
            continue
        for each in core.step():
            if each.finish is not None:
                finished.append(each.request)
                for r in more(each.request) if more else ():
                    heapq.heappush(queue, (r.arrival, count, r))
                    count += 1
    return finished
