"""Many clients on one engine: nothing is lost, nothing is answered twice, and no fault hangs anybody."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.engine.model import CACHED
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.sampling import SamplingParams
from cloudchamber.engine.serving.aio import AsyncEngine, EngineClosed, RequestFailed

from .toy import ToyLLM


class Engine:
    """An engine that is closed at the end, whatever happened."""

    def __init__(self, *args, **kwargs):
        self.llm = ToyLLM(*args, **kwargs)

    async def __aenter__(self):
        self.engine = AsyncEngine(self.llm)
        return self.engine

    async def __aexit__(self, *_):
        self.llm.executor.gate.set()
        await asyncio.wait_for(asyncio.to_thread(self.engine.close), 20)


def run(test):
    return asyncio.run(asyncio.wait_for(test, 40))


async def until(holds):
    while not holds():
        await asyncio.sleep(0.002)


def prompts(n, vocab, seed=0, most=20):
    rng = random.Random(seed)
    return [[rng.randrange(vocab) for _ in range(rng.randint(1, most))] for _ in range(n)]


def test_concurrent_answers_are_those_of_one_at_a_time():
    async def test():
        async with Engine(blocks=24, token_budget=16) as engine:
            asked = prompts(40, engine.llm.vocab)
            params = SamplingParams(max_tokens=12)
            got = await asyncio.gather(*(engine.generate(prompt, params) for prompt in asked))
            assert [each.token_ids for each in got] == [engine.llm.greedy(prompt, 12) for prompt in asked]
            for each in got:
                body = each.token_ids[:-1] if each.finish == "stop" else each.token_ids
                assert each.text == engine.llm.text.decode(body)
            assert engine.in_flight == 0
        assert engine.llm.is_clean()
        assert engine.metrics.finishes["stop"] + engine.metrics.finishes["length"] == 40

    run(test())


@settings(max_examples=25)
@given(
    seed=st.integers(0, 999),
    blocks=st.integers(8, 30),
    chances=st.tuples(st.floats(0, 0.5), st.floats(0, 0.1), st.floats(0, 0.1)),
)
def test_every_request_is_answered_once_whatever_is_cancelled_or_breaks(seed, blocks, chances):
    cancelled, failing, bad = chances
    rng = random.Random(seed)

    async def client(engine, prompt, seen):
        answer = await engine.submit(prompt, SamplingParams(max_tokens=8))
        stop_after = rng.randrange(8) if rng.random() < cancelled else 99
        try:
            async for delta in answer:
                seen.append(delta.finish)
                if len(seen) > stop_after:
                    return "cancelled"
        except RequestFailed:
            return "failed"
        finally:
            answer.cancel()
        return list(answer.request.tokens[len(prompt) :])

    async def test():
        async with Engine(blocks=blocks, block_tokens=2, token_budget=8, max_running=4) as engine:
            toy = engine.llm
            unlucky = {i for i in range(1, 25) if rng.random() < failing}
            broken = {i for i in range(1, 25) if rng.random() < bad}
            toy.executor.fails = lambda r: r.id in unlucky and r.n_output > 2
            toy.executor.bad = lambda r: r.id in broken and r.n_output > 1
            asked = prompts(24, toy.vocab, seed, most=7)
            seen = [[] for _ in asked]
            got = await asyncio.gather(*(client(engine, prompt, each) for prompt, each in zip(asked, seen, strict=True)))
            for prompt, answer, finishes in zip(asked, got, seen, strict=True):
                assert all(each is None for each in finishes[:-1])
                if not isinstance(answer, str):
                    assert answer == toy.greedy(prompt, 8)
                    assert finishes[-1] in ("stop", "length")
            if not unlucky and not broken:
                assert "failed" not in got
            await until(lambda: engine.in_flight == 0)
        assert toy.is_clean()
        assert sum(engine.metrics.finishes.values()) == 24
        assert sorted(toy.executor.forgotten) == sorted({*toy.executor.forgotten}) == list(range(1, 25))

    run(test())


def test_cancelling_frees_the_blocks_within_one_step():
    async def test():
        async with Engine() as engine:
            toy = engine.llm
            stream = engine.stream([5, 6, 7], SamplingParams(max_tokens=100, ignore_eos=True))
            await anext(stream)
            toy.executor.gate.clear()  # the step that runs now is the last one it is in
            await asyncio.sleep(0.02)
            await stream.aclose()
            steps = toy.core.steps
            toy.executor.gate.set()
            await until(lambda: engine.in_flight == 0)
            assert toy.core.steps <= steps + 1
            assert toy.is_clean()

    run(test())


def test_cancelling_a_task_gives_its_request_up():
    async def test():
        async with Engine(step_s=0.002) as engine:
            task = asyncio.create_task(engine.generate([5, 6, 7], SamplingParams(max_tokens=200, ignore_eos=True)))
            await until(lambda: engine.view.running == 1)
            task.cancel()
            await until(engine.llm.is_clean)
            assert engine.metrics.finishes["abort"] == 1

    run(test())


def test_a_broken_step_fails_its_own_requests_only():
    async def test():
        async with Engine(max_running=1) as engine:
            engine.llm.executor.fails = lambda r: r.id == 2
            params = SamplingParams(max_tokens=5)
            got = await asyncio.gather(*(engine.generate([i], params) for i in range(5, 9)), return_exceptions=True)
            assert [isinstance(each, RequestFailed) for each in got] == [False, True, False, False]
            assert "out of memory" in str(got[1])
        assert engine.llm.is_clean()

    run(test())


class Faulty(FCFS):
    """Fails in one verb, so many times."""

    def __init__(self, verb="order", times=1):
        self.verb, self.times = verb, times

    def _maybe(self, verb, answer):
        if verb == self.verb and self.times:
            self.times -= 1
            raise ZeroDivisionError("by the policy")
        return answer

    def order(self, view, waiting):
        return self._maybe("order", super().order(view, waiting))

    def victim(self, view, running):
        return self._maybe("victim", None)

    def chunk(self, view, r, budget):
        return self._maybe("chunk", budget)

    def keep(self, view, r):
        return self._maybe("keep", r.n_tokens)

    def on_arrive(self, view, r):
        self._maybe("on_arrive", None)

    def on_admit(self, view, r):
        self._maybe("on_admit", None)

    def on_finish(self, view, r):
        return self._maybe("on_finish", CACHED)


@pytest.mark.parametrize("verb", ["order", "victim", "chunk", "keep", "on_arrive", "on_admit", "on_finish"])
def test_a_failing_policy_hangs_nobody(verb):
    async def test():
        async with Engine(blocks=8, policy=Faulty(verb)) as engine:
            asked = [*prompts(5, 300), [7, 8]]
            params = [SamplingParams(max_tokens=12, ignore_eos=True)] * 5 + [SamplingParams(max_tokens=1)]
            got = await asyncio.gather(*(engine.generate(*pair) for pair in zip(asked, params, strict=True)), return_exceptions=True)
            failed = [each for each in got if isinstance(each, Exception)]
            assert failed
            assert all(isinstance(each, RequestFailed) and "by the policy" in str(each) for each in failed)
            assert engine.llm.is_clean()
            assert (await engine.generate([9], SamplingParams(max_tokens=3))).token_ids == engine.llm.greedy([9], 3)
            assert engine.metrics.counts["policy_errors_total"] == 1
        assert sum(engine.metrics.finishes.values()) == 7

    run(test())


class Idle(FCFS):
    """Lets nobody run."""

    def chunk(self, view, r, budget):
        return 0


def test_a_policy_that_lets_nothing_run_fails_the_requests(monkeypatch):
    monkeypatch.setattr("cloudchamber.engine.stepping.STALL_S", 0.05)

    async def test():
        async with Engine(policy=Idle()) as engine:
            with pytest.raises(RequestFailed, match="lets none run"):
                await engine.generate([5], SamplingParams())

    run(test())


class Stillborn(Faulty):
    """Cannot be reset once it was used."""

    def reset(self, spec, rng):
        if not self.times:
            raise CandidateError("the jail is gone", "died")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_policy_that_cannot_start_again_ends_the_engine_and_says_so():
    async def test():
        engine = AsyncEngine(ToyLLM(policy=Stillborn("order")))
        with pytest.raises(RequestFailed, match="by the policy"):
            await engine.generate([5], SamplingParams())
        await until(lambda: engine.broken)
        with pytest.raises(EngineClosed, match="the jail is gone"):
            await engine.generate([5], SamplingParams())
        engine.close()

    run(test())


def test_closing_finishes_what_was_accepted_and_takes_no_more():
    async def test():
        engine = AsyncEngine(ToyLLM(step_s=0.001))
        answers = [await engine.submit(prompt, SamplingParams(max_tokens=10)) for prompt in prompts(20, 300)]
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await until(lambda: engine._is_closing)
        with pytest.raises(EngineClosed, match="shutting down"):
            await engine.submit([5], SamplingParams())
        for answer in answers:
            got = [token async for delta in answer for token in delta.token_ids]
            assert got == engine.llm.greedy(answer.request.tokens[: answer.request.n_input], 10)
        await closing

    run(test())


def test_closing_without_drain_ends_every_answer():
    async def test():
        engine = AsyncEngine(ToyLLM(step_s=0.001))
        answers = [await engine.submit(prompt, SamplingParams(max_tokens=100, ignore_eos=True)) for prompt in prompts(5, 300)]
        await asyncio.to_thread(engine.close, drain=False)
        for answer in answers:
            with pytest.raises(RequestFailed, match="closed"):
                async for _ in answer:
                    pass

    run(test())


def test_what_can_never_run_is_refused_at_once():
    async def test():
        async with Engine(blocks=4) as engine:
            with pytest.raises(InputError, match="takes at most 16 tokens"):
                await engine.generate([5] * 10, SamplingParams(max_tokens=8))
            with pytest.raises(InputError, match="no token"):
                await engine.generate([5, -1], SamplingParams())

    run(test())


class Watching(FCFS):
    """Notes how requests ended."""

    def reset(self, spec, rng):
        self.ended_ = []

    def on_finish(self, view, r):
        self.ended_.append((r.id, r.is_aborted))
        return CACHED


def test_a_stop_text_ends_an_answer_and_is_no_abort_to_the_policy():
    async def test():
        async with Engine(policy=Watching()) as engine:
            toy = engine.llm
            made = toy.greedy([5, 6], 30)
            whole = toy.text.decode(made)
            stop = next(whole[i : i + 3] for i in range(8, len(whole)) if "\ufffd" not in whole[i : i + 3])
            got = await engine.generate([5, 6], SamplingParams(max_tokens=30, stop=(stop,)))
            assert got.finish == "stop"
            assert got.text == whole[: whole.index(stop)]
            assert got.token_ids == made[: len(got.token_ids)]
            assert len(got.token_ids) < 30
            await until(lambda: toy.core.policy.ended_)
            assert toy.core.policy.ended_ == [(1, False)]
        assert toy.is_clean()

    run(test())
