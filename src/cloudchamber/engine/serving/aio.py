"""An engine for many clients at once: its step loop in a thread of its own, its answers in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.errors import ChamberError
from cloudchamber.engine.request import Finish, Request
from cloudchamber.engine.sampling import SamplingParams
from cloudchamber.engine.seams import Progress
from cloudchamber.engine.stepping import Stepper, abandon

from .metrics import Metrics

if TYPE_CHECKING:
    from cloudchamber.engine.llm import LLM


class RequestFailed(ChamberError, RuntimeError):
    """A request that was accepted could not be answered: its step, the policy or the engine failed."""


class EngineClosed(ChamberError, RuntimeError):
    """The engine takes no request any more."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new of an answer: text that is certain, tokens, what was asked about each of them, and why it ended, if it did."""

    text: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish: Finish | None = None


class Answer:
    """One request's answer on its way: iterate over its :class:`Delta`; ``cancel`` gives it up, at the latest one step later."""

    def __init__(self, engine: AsyncEngine, request: Request) -> None:
        self.request = request
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._text = engine.text.stream(request.sampling.stop)
        self._arrived: asyncio.Queue[Delta] = asyncio.Queue()
        self._has_ended = False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while not self._has_ended:
            delta = await self._arrived.get()
            self._has_ended = delta.finish is not None
            if delta.finish in ("error", "abort"):
                raise RequestFailed(self.request.error or "the engine was closed before the answer was complete")
            yield delta

    def cancel(self) -> None:
        """Give the request up; nothing happens if it has ended."""
        if not self._has_ended:
            self._has_ended = True
            self._engine._give_up(self.request)

    def _push(self, progress: Progress) -> Delta:
        """The engine's thread brings news."""
        tokens, finish = progress.tokens, progress.finish
        is_end = finish == "stop" and bool(tokens)  # by its last token, which is no text
        piece = self._text.push(tokens[:-1] if is_end else tokens)
        if finish is not None and not self._text.is_stopped:
            piece += self._text.flush()
        details = progress.details or []
        if tokens and self.request.n_output == len(tokens):  # the first of them: the prompt has been computed
            details = [*self.request.prompt_logprobs, *details]
        return Delta(piece, tokens, details, "stop" if self._text.is_stopped else finish)


class AsyncEngine:
    """Serve requests from asyncio, all in one engine, whose steps run in a thread.

    An executor's fault fails the requests of its step, a policy's fault those in the engine; the engine goes on. Every accepted request
    is answered once.

    Parameters
    ----------
    llm : LLM
        Belongs to this engine from now on.
    remake : callable () -> SchedulerPolicy, optional
        Makes the policy again after a fault; without it the same object is reset.

    Raises
    ------
    InputError
        If the checkpoint has no tokenizer.
    """

    def __init__(self, llm: LLM, remake: Callable[[], Any] | None = None) -> None:
        self._remake = remake
        self.llm, self.core, self.text = llm, llm.core, llm.text
        self.metrics = Metrics()
        self.view = self.core.view()
        self.broken = ""
        self._changed = threading.Condition()
        self._inbox: deque[Answer | Request] = deque()  # an answer begins, a request is given up
        self._answers: dict[int, Answer] = {}
        self._outbox: list[tuple[Answer, Delta]] = []
        self._is_closing = False
        self._stepper = Stepper(self.core)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ in asyncio
    async def submit(self, prompt: str | list[int], params: SamplingParams, **extras: Any) -> Answer:
        """Accept a request and return its answer, of which nothing is there yet.

        Raises
        ------
        InputError
            If it could never run.
        EngineClosed
            If the engine takes no more.
        """
        self.check_open()
        tokens = await asyncio.to_thread(self.text.encode, prompt) if isinstance(prompt, str) else prompt
        with self._changed:
            self.check_open()
            request = self.llm.request(tokens, params, **extras)
            self.core.check(request)
            answer = Answer(self, request)
            self._inbox.append(answer)
            self._changed.notify()
        return answer

    async def stream(self, prompt: str | list[int], params: SamplingParams, **extras: Any) -> AsyncGenerator[Delta, None]:
        """Yield an answer as it comes; closing the generator gives the request up."""
        answer = await self.submit(prompt, params, **extras)
        try:
            async for delta in answer:
                yield delta
        finally:
            answer.cancel()

    async def generate(self, prompt: str | list[int], params: SamplingParams, **extras: Any) -> Delta:
        """Return an answer whole; cancelling gives the request up.

        Raises
        ------
        RequestFailed
            If its step or the policy failed.
        """
        async with contextlib.aclosing(self.stream(prompt, params, **extras)) as stream:
            return joined([delta async for delta in stream])

    def check_open(self) -> None:
        """Raise EngineClosed if the engine takes no more."""
        if self.broken:
            raise EngineClosed(f"the engine has failed: {self.broken}")
        if self._is_closing:
            raise EngineClosed("the engine is shutting down and takes no more requests.")

    @property
    def in_flight(self) -> int:
        """Requests accepted and not ended."""
        return len(self._answers) + sum(isinstance(each, Answer) for each in tuple(self._inbox))

    def close(self, drain: bool = True) -> None:
        """Take no more requests, finish those accepted (without ``drain``: end them), and return when the thread has ended."""
        with self._changed:
            self._is_closing = True
            if not drain:
                self.broken = self.broken or "it was closed"
            self._changed.notify()
        self._thread.join()

    def _give_up(self, request: Request) -> None:
        with self._changed:
            self._inbox.append(request)
            self._changed.notify()

    # ------------------------------------------------------------------ in the engine's thread
    def _run(self) -> None:
        try:
            while self._wait():
                try:
                    self._read()
                    self._step()
                except Exception as error:  # of the policy: the executor's are the core's business
                    self._fail(error)
                self.view = self.core.view()
                self._send()
        except BaseException as error:  # what is left must be answered, whatever broke
            self.broken = f"{type(error).__name__}: {error}"
            raise
        finally:
            with self._changed:
                self._is_closing = True
                left = [each for each in self._inbox if isinstance(each, Answer)]
            self._fail_answers([*self._answers.values(), *left], self.broken)
            self._answers.clear()
            self._send()

    def _wait(self) -> bool:
        """Sleep while there is nothing to do. False at the end."""
        with self._changed:
            while not (self._inbox or self.core.requests or self._is_closing):
                self._changed.wait()
                self._stepper = Stepper(self.core)
            return not self.broken and bool(self._inbox or self.core.requests)

    def _read(self) -> None:
        while self._inbox:
            each = self._inbox.popleft()
            if isinstance(each, Answer):
                self._answers[each.request.id] = each
                self.core.add(each.request)
            elif self._answers.pop(each.id, None) is not None:
                self.core.abort(each.id)
                self.metrics.ended(each)

    def _step(self) -> None:
        for each in self._stepper.step() if self.core.requests else ():
            self._hear(each)

    def _hear(self, progress: Progress) -> None:
        request = progress.request
        answer = self._answers[request.id]
        delta = answer._push(progress)
        if delta.finish is not None:
            if progress.finish is None:
                self.core.abort(request.id, "stop")
            del self._answers[request.id]
            self.metrics.ended(request)
        self._outbox.append((answer, delta))

    def _fail(self, error: Exception) -> None:
        """The policy has failed: so do the requests it was to serve. The next ones find it as new."""
        self.metrics.counts["policy_errors_total"] += 1
        failed = self.core.policy
        abandon(self.core, list(self.core.requests.values()), "error")
        self._fail_answers(list(self._answers.values()), f"{type(error).__name__}: {error}")
        self._answers.clear()
        self._stepper = Stepper(self.core)
        if self._remake is not None:
            with contextlib.suppress(AttributeError):  # a jailed one has a process to end
                failed.close()
            failed = self._remake()
        failed.reset(self.core.spec, np.random.default_rng(0))
        self.core.policy = failed

    def _fail_answers(self, answers: list[Answer], why: str) -> None:
        for answer in answers:
            answer.request.finish = "error"
            answer.request.error = answer.request.error or why
            self.metrics.ended(answer.request)
            self._outbox.append((answer, Delta("", finish="error")))

    def _send(self) -> None:
        """Hand the news over, one call for each event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Answer, Delta]]] = {}
        for answer, delta in self._outbox:
            loops.setdefault(answer._loop, []).append((answer, delta))
        self._outbox = []
        for loop, news in loops.items():
            try:
                loop.call_soon_threadsafe(_hand_over, news)
            except RuntimeError:  # the loop is closed, and its clients are gone
                for answer, _ in news:
                    self._give_up(answer.request)


def _hand_over(news: list[tuple[Answer, Delta]]) -> None:
    for answer, delta in news:
        answer._arrived.put_nowait(delta)


def joined(deltas: list[Delta]) -> Delta:
    """An answer's pieces as one."""
    return Delta(
        "".join(each.text for each in deltas),
        [token for each in deltas for token in each.token_ids],
        [item for each in deltas for item in each.logprobs],
        deltas[-1].finish,
    )
