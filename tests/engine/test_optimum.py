from itertools import permutations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cloudchamber.engine.model import EngineSpec
from cloudchamber.engine.optimum import least_work_s, limits, srpt
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.simulator import drive
from cloudchamber.engine.traces import Trace

from .worlds import COST, POLICIES, engine

BLOCK = 4
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


class Fixed(FCFS):
    """A given order, whatever is running."""

    def __init__(self, places=()):
        self.places = places

    def order(self, view, waiting):
        return sorted((r.id for r in waiting), key=self.places.index)


@st.composite
def traces(draw, most=8):
    rows = draw(
        st.lists(
            st.tuples(st.floats(0, 0.2), st.integers(1, 30), st.integers(1, 8), st.integers(0, 2), st.integers(0, 6)),
            min_size=1,
            max_size=most,
        )
    )
    rows.sort()
    blocks = [
        [hash((family, k)) if k < shared else hash((family, i, k)) for k in range((n + (out if i % 2 else 0)) // BLOCK)]
        for i, (_, n, out, family, shared) in enumerate(rows)
    ]
    return Trace(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), np.array([row[2] for row in rows]), blocks, BLOCK)


def mean(policy, trace, blocks, running=3):
    core = engine(policy, blocks=blocks, block=BLOCK, budget=16, running=running)
    done = drive(core, trace.requests())
    return float(np.mean([r.finish_s - r.arrival for r in done])), core


def spec(blocks, running=3):
    return EngineSpec(BLOCK, blocks, 16, running, COST)


@pytest.mark.parametrize("name", POLICIES)
@given(traces(12), st.integers(10, 40))
@settings(max_examples=30, deadline=None, phases=PHASES)
def test_no_policy_beats_the_bound(name, trace, blocks):
    assert mean(POLICIES[name](), trace, blocks)[0] >= limits(trace, spec(blocks)).mean_latency_s - 1e-9


@given(traces(4), st.integers(10, 20), st.integers(1, 3))
@settings(max_examples=25, deadline=None, phases=PHASES)
def test_no_order_beats_the_bound(trace, blocks, running):
    best = min(mean(Fixed(order), trace, blocks, running)[0] for order in permutations(range(len(trace))))
    assert best >= limits(trace, spec(blocks, running)).mean_latency_s - 1e-9


@given(traces(10))
@settings(max_examples=30, deadline=None, phases=PHASES)
def test_no_run_does_less_work(trace):
    _, core = mean(FCFS(), trace, 60)
    assert core.clock.now() - trace.arrival_s[0] >= least_work_s(trace, spec(60)) - 1e-9


def test_a_lone_request_all_but_attains_the_bound():
    trace = Trace(np.array([1.0]), np.array([20]), np.array([5]))
    assert mean(FCFS(), trace, 60)[0] == pytest.approx(limits(trace, spec(60)).mean_latency_s, rel=1e-3)


def test_srpt_interrupts_the_long_for_the_short():
    assert srpt(np.array([0.0, 1.0, 1.0]), np.array([5.0, 1.0, 2.0])).tolist() == [8.0, 2.0, 4.0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_srpt_is_the_best_of_all_priorities(jobs):
    """Against every static priority with preemption, in unit steps."""
    jobs.sort()
    at, work = np.array([float(a) for a, _ in jobs]), np.array([float(w) for _, w in jobs])
    best = np.inf
    for order in permutations(range(len(jobs))):
        left, now, total = work.copy(), 0.0, 0.0
        while left.any():
            ready = [j for j in order if left[j] and at[j] <= now]
            now += 1
            if ready:
                left[ready[0]] -= 1
                total += now * (left[ready[0]] == 0)
        best = min(best, total)
    assert srpt(at, work).sum() <= best + 1e-9


def test_one_prefix_for_many_is_paid_for_once():
    n = 10
    trace = Trace(np.zeros(n), np.full(n, 404), np.ones(n, int), [[*range(100), 1000 + i] for i in range(n)], BLOCK)
    found = limits(trace, EngineSpec(BLOCK, 1000, 1000, 1, COST))
    assert found.hit_share == pytest.approx(900 / 1010)
    assert found.work_s < n * COST.seconds(404, 404 * 202, 0, 0) / 2
