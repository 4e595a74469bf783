"""Requests served as they arrive: with a cost model and a virtual clock the verified world, with torch and a real one the real world."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import numpy as np

from cloudchamber.core.errors import CandidateError

from .core import EngineCore
from .request import Request
from .stepping import abandon


def drive(core: EngineCore, arrivals: Iterable[Request], more: Callable[[Request], Iterable[Request]] | None = None) -> list[Request]:
    """Serve requests until all are finished, and return them in order of finish.

    Parameters
    ----------
    core : EngineCore
        Its clock decides whether this takes time.
    arrivals : iterable of Request
        ``arrival`` in seconds on the engine's clock.
    more : callable (finished Request) -> requests, optional
        What a finish brings about: the next turn of a conversation, at its own arrival time.

    Raises
    ------
    CandidateError
        If requests wait and the policy lets none of them run; none is left in the engine.
    """
    clock = core.clock
    queue = [(r.arrival, i, r) for i, r in enumerate(arrivals)]
    heapq.heapify(queue)
    count, finished = len(queue), []
    try:
        while queue or core.requests:
            while queue and queue[0][0] <= clock.now():
                core.add(heapq.heappop(queue)[2])
            progress = core.step(queue[0][0] if queue else np.inf)
            if not progress and not core.running:
                if not queue:
                    raise CandidateError(f"{core.waiting} requests wait, and the policy lets none run", "protocol")
                clock.wait(queue[0][0])
            for each in progress:
                if each.finish is not None:
                    finished.append(each.request)
                    for r in more(each.request) if more else ():
                        heapq.heappush(queue, (r.arrival, count, r))
                        count += 1
    finally:
        abandon(core, list(core.requests.values()))
    return finished
