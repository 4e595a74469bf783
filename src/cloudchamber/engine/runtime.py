"""The real world: the same requests, served by a real executor as they arrive."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable

from .core import EngineCore
from .request import Request


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
