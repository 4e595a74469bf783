"""The verified world of the online study: the real store, its scheduler and its workers, on a clock of events instead of seconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from .world import Running, World, patience_s


def simulate(world: World, policy: Any, *, timeout_s: float | None = None, clock: Callable[[float], float] = float) -> float:
    """Run every transaction to its commit and return the seconds it took.

    Each access takes the service time. A transaction that must wait tries again whenever another has ended, and stops waiting for
    expectations after ``timeout_s`` (None: some sixty transactions). The ``clock`` is told when the next event is due and says when it is.
    """
    timeout_s = patience_s(world) if timeout_s is None else timeout_s
    now, count, idle = 0.0, 0, world.spec.workers
    events: list[tuple[float, int, Running | None, int]] = []  # when, a running number, who (None: a worker is free), which wait ends
    blocked: dict[int, tuple[Running, int]] = {}
    backing_off: set[Running] = set()

    def at(time_s: float, run: Running | None, wait: int = 0) -> None:
        nonlocal count
        count += 1
        heapq.heappush(events, (time_s, count, run, wait))

    while not world.is_finished:
        while idle and (admitted := world.next(policy, now)) is not None:
            idle -= 1
            at(now, admitted)
        due, _, run, wait = heapq.heappop(events)
        now = clock(due)
        if run is None:
            idle += 1
            continue
        if run in backing_off:
            backing_off.remove(run)
            world.retry(run)
            idle += 1
            continue
        if wait:  # the end of a wait that may be over already
            if blocked.get(run.call.number) != (run, wait):
                continue
            del blocked[run.call.number]
            run.is_patient = False
            world.tally.timeouts += 1
        answer = world.step(run)
        if answer == "ok":
            at(now + world.spec.service_s, run)
        elif answer == "wait":
            blocked[run.call.number] = (run, count + 1)
            at(now + timeout_s, run, count + 1)
        else:
            if answer == "done":
                world.end(run, now)
                at(now, None)
            else:
                at(now + world.roll_back(run), run)
                backing_off.add(run)
            for each, _ in blocked.values():
                at(now, each)
            blocked.clear()
    return now
