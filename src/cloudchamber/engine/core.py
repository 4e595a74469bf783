"""The engine's core: queues and the step loop. It knows no torch and no wall clock, so that the simulator is the engine itself.

There are no phases: every request has ``n_computed`` tokens, and each step brings it nearer to all it knows, under one token
budget. Running requests come first (decodes, then unfinished prompts), then waiting ones in the policy's order. Who finds no
block takes them from pins, then from the policy's victim, which starts again (its prefix may still be cached).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cloudchamber.core.errors import CandidateError, InputError

from . import leap
from .model import CACHED, FREE, EngineSpec, ReqView, Retain, View
from .programs import Programs
from .request import Finish, Request
from .seams import Clock, Executor, KVManager, ProgramId, Progress, ReqId, Scheduled, StepPlan, StepRecord, StepResult


class EngineCore:
    """Queues and step loop.

    Parameters
    ----------
    kv : KVManager
    policy : SchedulerPolicy
        Reset by the caller.
    executor : Executor
    clock : Clock
    spec : EngineSpec
        Its budgets are the core's.
    max_model_len : int or None
        Most tokens of one request, prompt and answer; at most what the pool holds.
    max_scored_len : int or None
        Most prompt tokens of a request for one token, of which the policy need not keep all; default ``max_model_len``.
    on_step : callable (StepRecord) -> None, optional
    """

    def __init__(
        self,
        kv: KVManager,
        policy: Any,
        executor: Executor,
        clock: Clock,
        spec: EngineSpec,
        *,
        max_model_len: int | None = None,
        max_scored_len: int | None = None,
        on_step: Callable[[StepRecord], None] | None = None,
    ) -> None:
        self.kv, self.policy, self.executor, self.clock, self.spec, self.on_step = kv, policy, executor, clock, spec, on_step
        pool = kv.blocks * kv.block_tokens
        self.max_model_len = min(max_model_len or pool, pool)
        self.max_scored_len = self.max_model_len if max_scored_len is None else max_scored_len
        self.requests: dict[ReqId, Request] = {}  # all that are not finished
        self.running: list[Request] = []  # in order of admission
        self.steps = 0
        self._preemptions = 0
        self._waiting: dict[ReqId, Request] = {}
        self._views: dict[ReqId, ReqView] = {}  # of those that wait, in the same order
        self._programs = Programs(kv)
        self._blocked: tuple[ReqId, int] | None = None  # who did not fit, with how many cached tokens: the queue waits for a change

    # ------------------------------------------------------------------ in and out
    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def check(self, r: Request) -> None:
        """Refuse what could never run.

        Raises
        ------
        InputError
            If the prompt and its answer are longer than the model's context or the pool.
        """
        most = self.max_scored_len if r.max_tokens == 1 else self.max_model_len
        if r.n_input + r.max_tokens - 1 > most:  # the last token is never computed
            raise InputError(
                f"the prompt has {r.n_input} tokens and the answer may have {r.max_tokens}; this engine takes {limit(most)}. "
                "Shorten the prompt, or lower max_tokens."
            )

    def add(self, r: Request) -> None:
        """Accept a request; it will finish.

        Raises
        ------
        InputError
            If it could never run, or its id is in use.
        """
        self.check(r)
        if r.id in self.requests:
            raise InputError(f"request {r.id} is already here.")
        self._programs.arrive(r, self.clock.now())
        self.requests[r.id] = r
        self._wait(r)
        self.policy.on_arrive(self.view(), self._views[r.id])

    def abort(self, request: ReqId, finish: Finish = "abort") -> Request | None:
        """End a request now, as aborted or because its text says so; its blocks are free on return. None if it is not here (any more)."""
        r = self.requests.get(request)
        if r is not None:
            self._end(r, finish)
        return r

    def view(self) -> View:
        """The engine now."""
        pool = self.kv.counts()
        return View(self.clock.now(), pool.free, pool.cached, pool.used, pool.pinned, len(self._waiting), len(self.running))

    def request_view(self, r: Request, is_pinned: bool | None = None) -> ReqView:
        """A request as the policy sees it."""
        return ReqView(
            r.id, r.program, r.program_arrival, r.arrival, r.n_input, r.n_computed, self.kv.lookup(r) if r.id in self._waiting else 0,
            r.n_output, r.priority, r.deadline, r.tool, r.is_last, r.was_preempted, r.finish == "abort",
            self._programs.is_pinned(r.program) if is_pinned is None else is_pinned,
        )  # fmt: skip

    def _wait(self, r: Request) -> None:
        self._waiting[r.id] = r
        self._views[r.id] = self.request_view(r)
        self._blocked = None

    def _look_again(self, program: ProgramId | None) -> None:
        """A program's pin came or went: blocks may be free, and its waiting requests say so."""
        self._blocked = None
        for r in self._waiting.values():
            if r.program == program:
                self._views[r.id] = self.request_view(r)

    # ------------------------------------------------------------------ one step
    def step(self, until: float = np.inf) -> list[Progress]:
        """Schedule and compute one step, or, in virtual time, as many equal decode steps as nothing can disturb before ``until``."""
        began = time.perf_counter()
        plan = self.schedule()
        if not plan.entries:
            return []
        self.steps += 1
        if not self._waiting or len(self.running) >= self.spec.max_running or self._is_blocked():
            times = leap.ends(self, plan, min(until, self._programs.next_expiry(self.clock.now())))
            if times is not None:
                return self._leap(plan, times)
        load = plan.load() if self.on_step is not None else None  # before answers change what the plan is about
        scheduled_s = time.perf_counter() - began
        try:
            result = self.executor.execute(plan)
        except Exception as error:  # only this step's requests fail, whatever broke; the pool stays consistent
            return [self._fail(each.request, f"{type(error).__name__}: {error}") for each in plan.entries]
        resumed = time.perf_counter()
        self.clock.advance(result.duration_s)
        progress = self._apply(plan, result)
        if self.on_step is not None and load is not None:
            self.on_step(StepRecord(*load, result.duration_s, scheduled_s + time.perf_counter() - resumed))
        return progress

    def schedule(self) -> StepPlan:
        """Decide what the next step computes, and give it its blocks."""
        for program in self._programs.expired(self.clock.now(), self._waiting.values()):
            self._unpin(program)
        left, preempted = self.spec.token_budget, self._preemptions
        planned: dict[ReqId, Scheduled] = {}
        decodes = [(r, True) for r in self.running if r.is_decode]
        prompts = [(r, False) for r in self.running if not r.is_decode] if len(decodes) < len(self.running) else []
        for r, is_decode in [*decodes, *prompts]:
            if left <= 0 or r.id in self._waiting:
                continue
            n = 1 if is_decode else self._chunk(r, self.request_view(r), min(left, r.n_tokens - r.n_computed))
            slack = min(self.executor.lookahead, r.max_tokens - r.n_output - 1) if is_decode else 0
            if n and self._make_room(r, r.n_computed + n + slack, planned):
                planned[r.id] = Scheduled(r, r.n_computed, n, r.n_tokens, is_decode)
                left -= n
        plan = StepPlan(list(planned.values()))
        if self._preemptions == preempted:  # else the victim would come straight back for the blocks it just gave up
            self._admit(plan, left)
        if not plan.entries and self.running:  # every chunk was refused: the oldest goes on, or nothing ever would
            r = self.running[0]
            n = min(self.spec.token_budget, r.n_tokens - r.n_computed)
            if self._make_room(r, r.n_computed + n, {}):
                plan.entries.append(Scheduled(r, r.n_computed, n, r.n_tokens, r.is_decode))
        return plan

    def _chunk(self, r: Request, view: ReqView, most: int) -> int:
        return min(_whole(self.policy.chunk(self.view(), view, most), "chunk"), most)

    def _admit(self, plan: StepPlan, left: int) -> None:
        """Let waiting requests in, in the policy's order, until one does not fit."""
        if not self._waiting or left <= 0 or len(self.running) >= self.spec.max_running or self._is_blocked():
            return
        for request in self._order():
            if left <= 0 or len(self.running) >= self.spec.max_running:
                return
            r = self._waiting[request]
            is_alone = r.n_input >= self.spec.batch_below > 0
            if is_alone and self.running:  # nobody overtakes it, so that its turn comes
                return
            cached = self.kv.lookup(r)
            kept = self._kept(r, cached)
            n = self._chunk(r, self._seen(r), min(left, r.n_tokens - cached))
            if n == 0:
                continue
            if kept < r.n_tokens:  # what is not kept cannot be computed in pieces
                n = r.n_tokens - cached
                if n > left and plan.entries:
                    return
            if not self._fit(r, min(cached + n, kept)):
                self._blocked = (r.id, self.kv.lookup(r))
                return
            n = min(cached + n, r.n_tokens) - r.n_computed  # a colliding hash may have promised more than there is
            left -= n
            self._start(r, kept)
            plan.entries.append(Scheduled(r, r.n_computed, n, kept, r.is_decode))
            if is_alone:
                return

    def _kept(self, r: Request, cached: int) -> int:
        if r.max_tokens > 1:
            return r.n_tokens  # decoding reads it all
        kept = _whole(self.policy.keep(self.view(), self._seen(r)), "keep")
        kept = min(max(kept, cached), self.kv.blocks * self.kv.block_tokens)
        return r.n_tokens if kept >= r.n_tokens else kept // self.kv.block_tokens * self.kv.block_tokens

    def _seen(self, r: Request) -> ReqView:
        """A waiting request's view, true again where its cached prefix has grown or shrunk."""
        for request in self.kv.changed():
            if request in self._waiting:
                self._views[request] = self.request_view(self._waiting[request])
        return self._views[r.id]

    def _order(self) -> list[ReqId]:
        self._seen(next(iter(self._waiting.values())))
        order = list(self.policy.order(self.view(), list(self._views.values())))
        if len(order) != len(self._waiting) or set(order) != self._waiting.keys():
            raise CandidateError(
                f"order must return the ids of all {len(self._waiting)} waiting requests, each once; got {len(order)}", "type"
            )
        return order

    def _start(self, r: Request, kept: int) -> None:
        had_pin = self._programs.is_pinned(r.program)
        del self._waiting[r.id], self._views[r.id]
        if had_pin:  # the new turn holds the blocks now
            self._unpin(r.program)
        self.running.append(r)
        r.kept = None if kept == r.n_tokens else kept
        if r.admitted_s is None:
            r.admitted_s, r.n_hit = self.clock.now(), r.n_computed
        view = self.request_view(r, is_pinned=had_pin)
        r.was_preempted = False
        self.policy.on_admit(self.view(), view)

    # ------------------------------------------------------------------ memory
    def _is_blocked(self) -> bool:
        """Whether nothing has come free since a request did not fit: the queue is not asked again before."""
        if self._blocked is None:
            return False
        r = self._waiting.get(self._blocked[0])
        return r is not None and self.kv.lookup(r) <= self._blocked[1]

    def _fit(self, r: Request, n_tokens: int) -> bool:
        """Allocate, taking pins away if need be."""
        while not self.kv.allocate(r, n_tokens):
            pins = self._programs.views()
            if not pins:
                return False
            chosen = self.policy.release(self.view(), pins)
            if chosen is None:
                chosen = max(pins, key=lambda each: (each.expiry, each.program)).program
            elif not self._programs.is_pinned(chosen):
                raise CandidateError(f"release must return a program that has a pin, got {chosen!r}", "type")
            self._unpin(chosen)
        return True

    def _make_room(self, r: Request, n_tokens: int, planned: dict[ReqId, Scheduled]) -> bool:
        """Allocate for a running request, preempting others if need be. False if it was itself the victim."""
        while not self._fit(r, n_tokens):
            chosen = self.policy.victim(self.view(), [self.request_view(each) for each in self.running])
            victim = self.running[-1] if chosen is None else next((each for each in self.running if each.id == chosen), None)
            if victim is None:
                raise CandidateError(f"victim must return the id of a running request or None, got {chosen!r}", "type")
            self._preempt(victim)
            planned.pop(victim.id, None)
            if victim is r:
                return False
        return True

    def _preempt(self, r: Request) -> None:
        self._preemptions += 1
        self.running.remove(r)
        self.kv.free(r, CACHED)
        r.n_computed, r.was_preempted, r.n_preempted = 0, True, r.n_preempted + 1
        self._wait(r)

    def _unpin(self, program: ProgramId | None) -> None:
        if self._programs.unpin(program):
            self._look_again(program)

    # ------------------------------------------------------------------ results
    def _apply(self, plan: StepPlan, result: StepResult) -> list[Progress]:
        now, progress = self.clock.now(), []
        for i, each in enumerate(plan.entries):
            r, tokens = each.request, result.tokens[i]
            if r.id in result.errors:
                progress.append(self._fail(r, result.errors[r.id]))
                continue
            tokens = tokens[: r.max_tokens - r.n_output]
            for at, token in enumerate(tokens):
                if token in r.stop_ids:
                    tokens = tokens[: at + 1]
                    break
            r.n_computed = each.end + max(len(tokens) - 1, 0)
            if tokens:
                if r.tokens is not None:
                    r.tokens += tokens
                r.n_output += len(tokens)
                self._tick(r, now, now)
            self.kv.commit(r, r.n_computed if r.kept is None else min(r.n_computed, r.kept))
            if self.executor.lookahead:
                self.kv.truncate(r, r.n_computed)
            finish: Finish | None = None
            if tokens and tokens[-1] in r.stop_ids:
                finish = "stop"
            elif r.n_output >= r.max_tokens:
                finish = "length"
            if finish is not None:
                self._end(r, finish)
            progress.append(Progress(r, tokens, result.details[i] if result.details else None, finish))
        return progress

    @staticmethod
    def _tick(r: Request, first: float, last: float, longest: float = 0.0) -> None:
        """Note the times of new tokens."""
        if r.first_token_s is None:
            r.first_token_s = first
        else:
            r.max_gap_s = max(r.max_gap_s, first - r.last_token_s, longest)
        r.last_token_s = last

    def _fail(self, r: Request, why: str) -> Progress:
        r.error = why
        self._end(r, "error")
        return Progress(r, [], None, "error")

    def _end(self, r: Request, finish: Finish) -> None:
        r.finish, r.finish_s = finish, self.clock.now()
        retain = self.policy.on_finish(self.view(), self.request_view(r))
        if not isinstance(retain, Retain) or not retain.ttl_s >= 0:
            raise CandidateError(f"on_finish must return a Retain with ttl_s of at least 0, got {retain!r}", "type")
        is_waiting = self._waiting.pop(r.id, None) is not None
        if finish == "error":
            retain = FREE
        elif retain.kind == "pin" and (r.program is None or is_waiting or not retain.ttl_s):
            retain = CACHED
        if is_waiting:
            del self._views[r.id]
        else:
            self.running.remove(r)
        del self.requests[r.id]
        self.kv.free(r, retain)
        self.executor.forget(r)
        self._blocked = None
        if self._programs.end(r, r.finish_s, retain):
            self._look_again(r.program)

    def _leap(self, plan: StepPlan, times: np.ndarray) -> list[Progress]:
        """Account for several equal decode steps at once."""
        leap.grow(self.kv, plan, len(times))
        self.clock.wait(float(times[-1]))
        self.steps += len(times) - 1
        longest = float(np.diff(times).max())
        progress = []
        for each in plan.entries:
            r = each.request
            r.n_computed += len(times)
            r.n_output += len(times)
            self._tick(r, float(times[0]), float(times[-1]), longest)
            self.kv.commit(r, r.n_computed)
            finish: Finish | None = "length" if r.n_output >= r.max_tokens else None
            if finish is not None:
                self._end(r, finish)
            progress.append(Progress(r, [0] * len(times), None, finish))
        return progress


def limit(most: int) -> str:
    """The longest request of ``most`` computed tokens, in words."""
    return f"at most {most} tokens a request, the last of the answer not counted"


def _whole(answer: Any, verb: str) -> int:
    if type(answer) is not int or answer < 0:
        raise CandidateError(f"{verb} must return a whole number of at least 0, got {answer!r}", "type")
    return answer
