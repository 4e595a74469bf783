import math

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.policy import Policy
from cloudchamber.engine.model import CACHED, FREE, SchedulerPolicy, pin
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.policies.plas import PLAS
from cloudchamber.engine.request import Request
from cloudchamber.engine.simulator import drive

from .worlds import POLICIES, Stepping, check_core, check_drained, engine, served, simple

BLOCK = 4
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # a whole simulation shrinks for minutes and says no more


class Pinning(FCFS):
    """Pins every turn that is not its program's last, for times that sometimes run out."""

    def on_finish(self, view, r):
        return CACHED if r.is_last else pin(0.02 * (r.id % 4))


class Choosy(FCFS):
    """Every verb answers something other than its default."""

    def victim(self, view, running):
        return running[len(running) // 2].id

    def chunk(self, view, r, budget):
        return (r.id + r.n_computed + int(100 * view.now)) % (budget + 1) if view.running else budget

    def keep(self, view, r):
        return r.n_input // 2

    def on_finish(self, view, r):
        return [FREE, CACHED, pin(0.05)][r.id % 3]

    def release(self, view, pins):
        return min(each.program for each in pins)


ALL = {**POLICIES, "Pinning": Pinning, "Choosy": Choosy}


@st.composite
def shapes(draw):
    """What a request is: lengths, the family whose hashes it shares and for how long, program, priority."""
    return (
        draw(st.integers(1, 40)), draw(st.integers(1, 12)), draw(st.integers(0, 2)), draw(st.integers(0, 10)),
        draw(st.sampled_from([None, "a", "b"])), draw(st.integers(0, 1)), draw(st.booleans()), draw(st.sampled_from(["", "tenant"])),
    )  # fmt: skip


def request_of(id, shape, arrival=0.0) -> Request:
    n_input, max_tokens, family, shared, program, priority, is_last, salt = shape
    known = (n_input + max_tokens) // BLOCK if id % 2 else n_input // BLOCK
    hashes = [hash((salt, family, i)) if i < shared else hash((salt, family, id, i)) for i in range(known)]
    return Request(id, n_input, max_tokens, arrival, hashes=hashes, program=program, priority=priority, is_last=is_last)


@pytest.mark.parametrize("name", ALL)
def test_random_requests_aborts_and_steps_keep_every_block_in_one_state(name):
    class Machine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.core, self.count = engine(ALL[name](), blocks=14, block=BLOCK, budget=16, running=4, max_scored_len=80), 0

        @rule(shape=shapes())
        def arrive(self, shape):
            self.core.add(request_of(self.count, shape, self.core.clock.now()))
            self.count += 1

        @precondition(lambda self: self.core.requests)
        @rule(which=st.integers(0, 100))
        def abort(self, which):
            ids = sorted(self.core.requests)
            used = self.core.abort(ids[which % len(ids)])
            assert used.finish == "abort" and used.id not in self.core.kv._tables

        @rule(steps=st.integers(1, 6))
        def step(self, steps):
            for _ in range(steps):
                self.core.step()
                if not self.core.running:
                    self.core.clock.advance(0.01)

        @invariant()
        def whole(self):
            check_core(self.core)

        def teardown(self):
            for _ in range(5000):
                if not self.core.requests:
                    break
                self.core.step()
                if not self.core.running:
                    self.core.clock.advance(0.01)
            check_drained(self.core)  # an accepted request always finishes

    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=12, stateful_step_count=25, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck)),
    )


def told(requests) -> list[tuple]:
    return [
        (r.id, r.arrival, r.admitted_s, r.first_token_s, r.last_token_s, r.finish_s, r.max_gap_s, r.n_hit, r.n_preempted) for r in requests
    ]


@pytest.mark.parametrize("name", ALL)
@given(st.lists(st.tuples(shapes(), st.floats(0, 0.3)), min_size=1, max_size=14), st.integers(11, 40))
@settings(max_examples=25, deadline=None, phases=PHASES)
def test_fast_forward_equals_stepping_to_the_bit(name, rows, blocks):
    ends = []
    for executor in (None, Stepping()):
        core = engine(ALL[name](), blocks=blocks + 3, block=BLOCK, budget=16, running=4, executor=executor, max_scored_len=56)
        rows = sorted(rows, key=lambda row: row[1])
        requests = [request_of(i, shape, at) for i, (shape, at) in enumerate(rows)]
        done = served(core, requests, check_core)
        check_drained(core)
        ends.append((told(done), core.clock.now(), core.steps, core.kv.counts(), list(core.kv._cached), core.kv._free))
    assert ends[0] == ends[1]


@given(st.lists(st.tuples(shapes(), st.floats(0, 0.1)), min_size=2, max_size=12))
@settings(max_examples=40, deadline=None, phases=PHASES)
def test_nobody_starves_under_fcfs(rows):
    """Requests are admitted first in order of arrival."""
    core = engine(FCFS(), blocks=15, block=BLOCK, budget=16, running=3)
    requests = [request_of(i, shape, at) for i, (shape, at) in enumerate(sorted(rows, key=lambda row: row[1]))]
    served(core, requests)
    assert [r.admitted_s for r in requests] == sorted(r.admitted_s for r in requests)


def run(policy, requests, **options):
    core = engine(policy, block=BLOCK, **options)
    done = drive(core, requests)
    check_drained(core)
    return core, done


class TestVerbs:
    """Each fails when the core does not ask the verb, or does not do what it says."""

    def test_order_decides_who_is_first(self):
        class Last(FCFS):
            def order(self, view, waiting):
                return [r.id for r in waiting][::-1]

        assert [r.id for r in run(Last(), [simple(i) for i in range(3)], running=1)[1]] == [2, 1, 0]

    @pytest.mark.parametrize("answer", [[], [0], [0, 0], [0, 7], [0, 1, 2]])
    def test_order_must_name_everyone_once(self, answer):
        class Wrong(FCFS):
            def order(self, view, waiting):
                return answer

        with pytest.raises(CandidateError, match="order must return the ids of all 2"):
            run(Wrong(), [simple(0), simple(1)])

    def test_victim_decides_who_gives_way(self):
        class First(FCFS):
            def victim(self, view, running):
                assert [r.id for r in running] == [0, 1]
                return 0

        requests = [simple(0, 8, 12), simple(1, 8, 12)]
        run(First(), requests, blocks=6)
        assert requests[0].n_preempted >= 1 and requests[1].n_preempted == 0
        requests = [simple(0, 8, 12), simple(1, 8, 12)]
        run(FCFS(), requests, blocks=6)
        assert requests[0].n_preempted == 0 and requests[1].n_preempted >= 1

    def test_victim_must_run(self):
        class Wrong(FCFS):
            def victim(self, view, running):
                return 99

        with pytest.raises(CandidateError, match="victim must return the id of a running request"):
            run(Wrong(), [simple(0, 8, 12), simple(1, 8, 12)], blocks=6)

    def test_chunk_decides_how_much_of_a_prompt(self):
        class Small(FCFS):
            def chunk(self, view, r, budget):
                return 5

        assert run(FCFS(), [simple(0, 20, 1)])[0].steps == 1
        assert run(Small(), [simple(0, 20, 1)])[0].steps == 4

    def test_chunk_of_nothing_passes_the_step(self):
        class Wait(FCFS):
            def chunk(self, view, r, budget):
                return 0 if r.id == 0 and view.now < 0.02 else budget

        requests = [simple(0), simple(1, 8, 9)]
        run(Wait(), requests)
        assert requests[1].admitted_s == 0.0 and requests[0].admitted_s >= 0.02

    def test_all_chunks_refused_the_oldest_goes_on(self):
        class Never(FCFS):
            def chunk(self, view, r, budget):
                return 4 if r.n_computed == 0 else 0

        assert len(run(Never(), [simple(0, 20, 1), simple(1, 20, 1)])[1]) == 2

    @pytest.mark.parametrize("verb", ["chunk", "keep"])
    @pytest.mark.parametrize("answer", [-1, 1.5, None, True])
    def test_chunk_and_keep_must_be_counts(self, verb, answer):
        wrong = type("Wrong", (FCFS,), {verb: lambda self, *args: answer})
        with pytest.raises(CandidateError, match=f"{verb} must return a whole number"):
            run(wrong(), [simple(0, 8, 1)])

    def test_keep_decides_what_stays_of_a_prompt_for_one_token(self):
        class Half(FCFS):
            def keep(self, view, r):
                return 9

        for policy, kept in ((FCFS(), 20), (Half(), 8)):
            core, _ = run(policy, [simple(0, 20, 1, hashes=[1, 2, 3, 4, 5])])
            assert core.kv.counts().cached * BLOCK == kept
            assert core.kv.lookup(simple(1, 40, 1, hashes=[1, 2, 3, 4, 5])) == kept

    def test_keep_lets_a_prompt_in_that_is_longer_than_the_pool(self):
        core, done = run(FCFS(), [simple(0, 100, 1)], blocks=3, max_scored_len=100)
        assert done[0].finish == "length" and core.kv.counts().free + core.kv.counts().cached == 3
        with pytest.raises(InputError, match="at most 12 tokens a request"):
            engine(blocks=3, max_scored_len=100).add(simple(0, 12, 3))

    def test_arrival_admission_and_finish_are_told(self):
        said = []

        class Listening(FCFS):
            def on_arrive(self, view, r):
                said.append(("arrive", r.id, r.arrival))

            def on_admit(self, view, r):
                said.append(("admit", r.id, r.is_preempted))

            def on_finish(self, view, r):
                said.append(("finish", r.id, r.n_output, r.is_aborted))
                return CACHED

        run(Listening(), [simple(0, 8, 12), simple(1, 8, 12)], blocks=6)
        assert said[:4] == [("arrive", 0, 0.0), ("arrive", 1, 0.0), ("admit", 0, False), ("admit", 1, False)]
        assert ("admit", 1, True) in said and said[-1] == ("finish", 1, 12, False)
        core = engine(Listening())
        core.add(simple(5))
        core.abort(5)
        assert said[-1] == ("finish", 5, 0, True)

    @pytest.mark.parametrize(("retain", "found"), [(CACHED, 8), (FREE, 0)])
    def test_on_finish_decides_what_becomes_of_the_blocks(self, retain, found):
        policy = type("Keeping", (FCFS,), {"on_finish": lambda self, view, r: retain})()
        core, _ = run(policy, [simple(0, 8, 1, hashes=[1, 2])])
        assert core.kv.lookup(simple(1, 12, hashes=[1, 2, 3])) == found

    @pytest.mark.parametrize("answer", [None, "cached", pin(-1.0), pin(math.nan)])
    def test_on_finish_must_be_a_retain(self, answer):
        policy = type("Wrong", (FCFS,), {"on_finish": lambda self, view, r: answer})()
        with pytest.raises(CandidateError, match="on_finish must return a Retain"):
            run(policy, [simple(0)])

    def test_release_decides_which_pin_yields(self):
        class Keeping(FCFS):
            def on_finish(self, view, r):
                return pin(100.0 + r.id) if r.program else CACHED

            def release(self, view, pins):
                return self.chosen

        for chosen, left in ((None, "a"), ("a", "b"), ("b", "a")):
            policy = Keeping()
            policy.chosen = chosen
            core = engine(policy, blocks=6, block=BLOCK)
            drive(core, [simple(0, 8, 1, hashes=[1, 2], program="a"), simple(1, 8, 1, hashes=[3, 4], program="b")])
            assert core.kv.counts().pinned == 4
            drive(core, [simple(2, 16, 1)])
            assert [each.program for each in core._programs.views()] == [left]
        policy.chosen = "nobody"
        core = engine(policy, blocks=3, block=BLOCK)
        with pytest.raises(CandidateError, match="release must return a program that has a pin"):
            drive(core, [simple(0, 8, 1, hashes=[1, 2], program="a"), simple(1, 12, 1)])


class TestPins:
    def core(self, ttl_s=0.05, blocks=8):
        policy = type("Pin", (FCFS,), {"on_finish": lambda self, view, r: pin(ttl_s) if r.program else CACHED})()
        return engine(policy, blocks=blocks, block=BLOCK)

    def test_pinned_blocks_are_not_evicted_until_they_expire(self):
        core = self.core()
        drive(core, [simple(0, 8, 1, hashes=[1, 2], program="a")])
        assert (core.kv.counts().pinned, core.view().pinned) == (2, 2)
        drive(core, [simple(1, 24, 1)])  # six other blocks
        assert core.kv.counts().pinned == 2
        core.clock.advance(0.06)
        drive(core, [simple(2, 4, 1, arrival=core.clock.now())])
        assert core.kv.counts().pinned == 0

    def test_expired_pin_stays_while_a_request_of_its_program_waits(self):
        core = self.core(ttl_s=0.001)
        drive(core, [simple(0, 8, 1, hashes=[1, 2], program="a")])
        core.clock.advance(1.0)
        late = simple(1, 12, 1, hashes=[1, 2, 3], program="a")
        core.add(late)
        core.step()
        assert late.n_hit == 8

    def test_next_turn_takes_the_pin_over_and_is_told_so(self):
        told = []
        core = self.core()
        core.policy.on_admit = lambda view, r: told.append(r.is_pinned)
        drive(core, [simple(0, 8, 1, hashes=[1, 2], program="a")])
        core.add(simple(1, 12, 5, hashes=[1, 2, 3], program="a"))
        assert core._views[1].is_pinned
        core.step()
        assert told == [False, True] and core.kv.counts().pinned == 0 and core.view().used == 3

    def test_program_has_one_pin_at_most(self):
        core = self.core(ttl_s=100.0)
        drive(core, [simple(0, 8, 1, hashes=[1, 2], program="a")])
        drive(core, [simple(1, 8, 1, hashes=[3, 4], program="a")])
        assert core.kv.counts().pinned == 2 and core.kv.lookup(simple(2, 12, hashes=[3, 4])) == 8

    def test_pin_holds_the_registered_twin_of_a_block_computed_twice(self):
        core = self.core(ttl_s=100.0)
        drive(core, [simple(0, 8, 9, hashes=[1, 2]), simple(1, 8, 1, hashes=[1, 2], program="a")])
        assert core.kv.counts().pinned == 2
        drive(core, [simple(2, 24, 1)])
        assert core.kv.lookup(simple(3, 12, hashes=[1, 2])) == 8

    def test_pins_yield_under_pressure_before_anybody_is_preempted(self):
        core = self.core(ttl_s=100.0)
        drive(core, [simple(0, 8, 1, hashes=[1, 2], program="a")])
        big = simple(1, 32, 1)
        drive(core, [big])
        assert core.kv.counts().pinned == 0 and big.n_preempted == 0

    def test_last_turn_aborted_drops_the_pin(self):
        core = self.core(ttl_s=100.0)
        drive(core, [simple(0, 8, 1, hashes=[1, 2], program="a")])
        core.add(simple(1, 12, 1, program="a"))
        core.abort(1)
        assert core.kv.counts().pinned == 0


def test_failure_of_the_executor_fails_only_that_steps_requests():
    class Broken(Stepping):
        calls = 0

        def execute(self, plan):
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("device lost")
            return super().execute(plan)

    core = engine(executor=Broken(), running=1)
    requests = [simple(0, 8, 3, hashes=[1, 2]), simple(1, 8, 3)]
    drive(core, requests)
    assert requests[0].finish == "error" and "device lost" in requests[0].error and requests[1].finish == "length"
    check_drained(core)


def test_policy_that_lets_nobody_run_is_an_error():
    class Never(FCFS):
        def chunk(self, view, r, budget):
            return 0

    with pytest.raises(CandidateError, match="1 requests wait, and the policy lets none run"):
        run(Never(), [simple(0)])


def test_a_policy_needs_only_the_protocol():
    class Mine(Policy, SchedulerPolicy):
        pass

    assert [r.id for r in run(Mine(), [simple(0), simple(1)], running=1)[1]] == [0, 1]


def test_drafts_never_ask_for_blocks_beyond_the_last_token():
    class Drafting(Stepping):
        lookahead = 8

    core = engine(executor=Drafting(), blocks=3, block=BLOCK)
    drive(core, [simple(0, 8, 5)])
    check_drained(core)


def test_idle_programs_are_forgotten():
    core = engine()
    for i in range(1025):
        drive(core, [simple(i, 4, 1, arrival=core.clock.now(), program=f"p{i}")])
    core.clock.advance(4000.0)
    drive(core, [simple(2000, 4, 1, arrival=core.clock.now(), program="new")])
    assert len(core._programs._known) == 1


def test_virtual_time_is_the_sum_of_durations():
    core, _ = run(FCFS(), [simple(0, 8, 3)])
    cost = core.spec.cost
    expected = cost.seconds(8, 32.0, 0, 0) + cost.seconds(0, 0.0, 1, 9) + cost.seconds(0, 0.0, 1, 10)
    assert np.isclose(core.clock.now(), expected, rtol=0, atol=1e-15)


def test_plas_counts_service_before_a_preemption():
    class Watched(PLAS):
        def on_admit(self, view, r):
            super().on_admit(view, r)
            events.append((r.id, view.now))

        def victim(self, view, running):
            chosen = super().victim(view, running)
            events.append((chosen, view.now))
            return chosen

        def on_finish(self, view, r):
            events.append((r.id, view.now))
            return super().on_finish(view, r)

    events = []
    core = engine(policy := Watched(), blocks=8, running=2)
    done = drive(core, [simple(i, 12, 12, 0.01 * i, program=f"p{i}") for i in range(2)])
    assert max(r.n_preempted for r in done) > 0
    for i in range(2):
        times = [now for request, now in events if request == i]  # admitted, gave way, admitted, …, finished
        assert policy.attained_[f"p{i}"] == pytest.approx(sum(times[1::2]) - sum(times[::2]))
