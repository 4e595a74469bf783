"""The real store in real time, under the same policy object: workers that are coroutines of one thread, or threads."""

from __future__ import annotations

import threading
import time
from typing import Any

from .simulator import simulate
from .world import Running, Step, World, patience_s


def run_coroutines(world: World, policy: Any, *, timeout_s: float | None = None) -> float:
    """Run every transaction to its commit, all workers in this thread, and return the seconds it took.

    The same events as in the simulator, on the machine's clock: whatever the store and the policy compute delays them.
    """
    began = time.perf_counter()

    def clock(due_s: float) -> float:
        while (now_s := time.perf_counter() - began) < due_s:
            if due_s - now_s > 2e-4:
                time.sleep(due_s - now_s - 1e-4)  # the rest is waited for without sleeping, which would overshoot
        return now_s

    simulate(world, policy, timeout_s=timeout_s, clock=clock)
    return time.perf_counter() - began


def run_threads(world: World, policy: Any, *, timeout_s: float | None = None) -> float:
    """Run every transaction to its commit on one thread per worker and return the seconds it took.

    A worker that dies gives back what it held; what it raised is raised here.
    """
    patience = patience_s(world) if timeout_s is None else timeout_s
    lock = threading.Lock()
    changed, offered = threading.Condition(lock), threading.Condition(lock)  # a transaction ended; a free worker may be given something
    failures: list[BaseException] = []
    began = time.perf_counter()

    def work() -> None:
        try:
            while True:
                with lock:
                    while (run := None if failures else world.next(policy, time.perf_counter() - began)) is None:
                        if failures or world.is_finished:
                            return
                        offered.wait(patience)
                    if world.may_admit:
                        offered.notify()
                carry(run)
        except BaseException as error:
            with lock:
                failures.append(error)
                changed.notify_all()
                offered.notify_all()

    def carry(run: Running) -> None:
        answer: Step = "ok"
        try:
            while answer != "done":
                with lock:
                    answer = world.step(run)
                    if answer == "wait":
                        if not changed.wait(patience):
                            run.is_patient = False
                            world.tally.timeouts += 1
                        if failures:
                            return
                        continue
                    pause_s = world.spec.service_s
                    if answer == "done":
                        world.end(run, time.perf_counter() - began)
                    elif answer == "abort":
                        pause_s = world.roll_back(run)
                    if answer != "ok":
                        changed.notify_all()
                        offered.notify()
                if answer != "done":
                    time.sleep(pause_s)
                if answer == "abort":
                    with lock:
                        world.retry(run)
                        offered.notify()
                    return
        except BaseException:
            with lock:  # what it held must not stop the others
                if run.call.number in world.running:
                    world.store.abort(run.txn)
            raise

    workers = [threading.Thread(target=work, daemon=True) for _ in range(world.spec.workers)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - began
