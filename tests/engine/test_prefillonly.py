from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.core.parallel import run_task
from cloudchamber.core.policy import Parameters
from cloudchamber.core.registry import load_study
from cloudchamber.engine.model import CostModel, EngineSpec, ReqView, View
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.prefillonly import (
    SHAPES,
    CalibratedSJF,
    FrozenSJF,
    KeepAll,
    KeepNone,
    LinearJCT,
    MissTokens,
    OracleMeanOrder,
    SuffixDiscard,
    route,
    serve,
)
from cloudchamber.engine.prefillonly.workloads import PrefillWorkload
from cloudchamber.engine.request import Request
from cloudchamber.engine.traces import Trace

STUDY = load_study("engine.prefillonly")
COST = CostModel(0.0, 1e-3, 1e-8, 0.0, 0.0)
BLOCK = 10
NOW = View(now=10.0, free=1, cached=0, used=0, pinned=0, waiting=2, running=0)


def spec(blocks=1000, longest=1000):
    return EngineSpec(BLOCK, blocks, longest, 1, COST)


def job(id, n_input, family, shared, arrival=0.0):
    hashes = [hash((family, k)) if (k + 1) * BLOCK <= shared else hash((id, k, "own")) for k in range(n_input // BLOCK)]
    return Request(id, n_input, 1, arrival, hashes=hashes)


def view(id, n_input, n_cached=0, arrival=0.0):
    return ReqView(id, None, arrival, arrival, n_input, 0, n_cached, 0)


def ready(policy, blocks=1000):
    policy.reset(spec(blocks), np.random.default_rng(0))
    return policy


def order_of(policy, requests, blocks=1000):
    done, core = serve(policy, requests, spec(blocks), np.random.default_rng(0))
    return [r.id for r in done], core, done


class TestWorkedExample:
    """A < C < B < D; A and D share a prefix, B and C another; the cache holds one of them."""

    def jobs(self):
        return [job(0, 105, "ad", 100), job(1, 125, "bc", 100), job(2, 115, "bc", 100), job(3, 135, "ad", 100)]

    @pytest.mark.parametrize(
        ("policy", "order", "hits"),
        [(FCFS(), [0, 1, 2, 3], 1), (FrozenSJF(lam=0), [0, 2, 1, 3], 1), (CalibratedSJF(lam=0), [0, 3, 2, 1], 2)],
        ids=["FCFS", "FrozenSJF", "CalibratedSJF"],
    )
    def test_calibration_finds_both_prefixes(self, policy, order, hits):
        found, _, done = order_of(policy, self.jobs(), blocks=13)
        assert found == order and sum(r.n_hit >= 100 for r in done) == hits


class TestScore:
    @given(
        st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 20_000), st.floats(0, 10)), min_size=1, max_size=20), st.floats(0, 5000)
    )
    @settings(max_examples=50, deadline=None)
    def test_order_is_a_function_of_length_cache_and_wait(self, rows, lam):
        views = [view(i, n, min(cached, n - 1), at) for i, (n, cached, at) in enumerate(rows)]
        expected = sorted(views, key=lambda r: (r.n_input - r.n_cached_now - lam * (NOW.now - r.arrival), r.arrival, r.id))
        policy = ready(CalibratedSJF(lam))
        assert policy.order(NOW, views) == [r.id for r in expected]
        assert sorted(policy.order(NOW, views[::-1])) == sorted(policy.order(NOW, views))

    def test_equal_scores_go_by_arrival(self):
        assert ready(CalibratedSJF(0)).order(NOW, [view(0, 5, 0, 2.0), view(1, 5, 0, 1.0)]) == [1, 0]

    def test_what_is_cached_moves_to_the_front_and_back(self):
        policy = ready(CalibratedSJF(0))
        assert policy.order(NOW, [view(0, 100), view(1, 50)]) == [1, 0]
        assert policy.order(NOW, [view(0, 100, 90), view(1, 50)]) == [0, 1]

    @pytest.mark.parametrize("make", [CalibratedSJF, FrozenSJF])
    def test_negative_lam_is_a_value_error(self, make):
        with pytest.raises(ValueError, match="lam must be"):
            ready(make(-1.0))

    @given(
        st.lists(st.tuples(st.floats(0, 3), st.integers(1, 300), st.integers(0, 2), st.integers(0, 200)), min_size=2, max_size=15),
        st.floats(20, 500),
    )
    @settings(max_examples=40, deadline=None)
    def test_nobody_is_passed_by_who_came_much_later(self, rows, lam):
        """Not by any request that arrives more than n_input / lam seconds after it."""
        requests = [job(i, n, family, shared, at) for i, (at, n, family, shared) in enumerate(sorted(rows))]
        _, _, done = order_of(CalibratedSJF(lam), requests, blocks=30)
        for k, first in enumerate(done):
            assert all(first.arrival <= later.arrival + later.n_input / lam + 1e-9 for later in done[k + 1 :])

    def test_very_large_lam_is_the_order_of_arrival(self):
        workload = STUDY.workloads()["smoke"]
        assert dict(STUDY.trial(CalibratedSJF(1e12), workload, 0).metrics) == dict(STUDY.trial(FCFS(), workload, 0).metrics)

    def test_linear_jct_recovers_its_profile(self):
        rows = tuple((n, c, 0.5 + 2e-3 * (n - c) + 1e-6 * (n - c) * n) for n in (1000, 2000, 5000) for c in (0, 500))
        found = LinearJCT(rows)
        assert found(4000, 1000) == pytest.approx(0.5 + 6 + 12) and found(np.array([1000]), np.array([0])) == pytest.approx([3.5])
        assert MissTokens()(10, 4) == 6
        with pytest.raises(InputError, match="at least 3 rows"):
            LinearJCT(((1, 0, 1.0),))(5, 0)

    def test_order_of_ten_thousand_is_vectorised(self):
        views = [view(i, 1000 + i % 77, i % 500, i / 1000) for i in range(10_000)]
        order = ready(CalibratedSJF()).order(NOW, views)
        assert sorted(order) == list(range(10_000)) and all(type(each) is int for each in order[:5])


class TestKeep:
    @pytest.mark.parametrize(
        ("rule", "kept"), [(KeepAll(), 100), (KeepNone(), 20), (SuffixDiscard(), 60)], ids=["KeepAll", "KeepNone", "SuffixDiscard"]
    )
    def test_rules(self, rule, kept):
        assert rule.keep_tokens(100, 20, 65, 10) == kept

    @given(
        st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3), st.integers(0, 300)), min_size=1, max_size=12),
        st.integers(2, 25),
        st.sampled_from([KeepAll(), KeepNone(), SuffixDiscard()]),
    )
    @settings(max_examples=60, deadline=None)
    def test_kept_kv_is_a_prefix_in_whole_blocks_within_the_pool(self, rows, blocks, rule):
        requests = [job(i, *row) for i, row in enumerate(rows)]
        policy = CalibratedSJF(prefix_keep=rule)
        policy.reset(spec(blocks), np.random.default_rng(0))
        done, core = serve(policy, requests, spec(blocks), np.random.default_rng(0))
        assert len(done) == len(rows) and core.kv.counts().used == 0
        for r in done:
            assert r.kept is None or (r.kept % BLOCK == 0 and r.kept <= blocks * BLOCK)

    @pytest.mark.parametrize(("rule", "found"), [(KeepAll(), 90), (KeepNone(), 0), (SuffixDiscard(), 90)])
    def test_the_core_asks_the_rule_whatever_the_order(self, rule, found):
        for make in (CalibratedSJF, FrozenSJF):
            _, core, _ = order_of(make(prefix_keep=rule), [job(0, 95, "a", 90)], blocks=20)
            assert core.kv.lookup(job(1, 105, "a", 90)) == found


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(5, 200), st.integers(0, 3), st.integers(0, 150)), min_size=2, max_size=15))
@settings(max_examples=40, deadline=None)
def test_with_an_unlimited_cache_hits_equal_what_there_is(rows):
    requests = [job(i, n - n % BLOCK + 5, family, shared, at) for i, (at, n, family, shared) in enumerate(sorted(rows))]
    n_input = np.array([r.n_input for r in requests])
    trace = Trace(np.zeros(len(requests)), n_input, np.ones(len(requests), int), [list(r.hashes) for r in requests], BLOCK)
    _, _, done = order_of(FCFS(), requests)
    blocks = sum(r.n_input // BLOCK for r in requests)
    assert sum(r.n_hit for r in done) == pytest.approx(trace.hit_share * blocks * BLOCK)


class Seconds(Parameters):
    """The true cost as a JCT."""

    _constraints = {}

    def __init__(self, cost=COST):
        self.cost = cost

    def __call__(self, n_input, n_cached):
        miss = n_input - n_cached
        return self.cost.seconds(miss, miss * (n_cached + 0.5 * miss), 0, 0)


class TestOracle:
    @pytest.mark.parametrize("seed", range(4))
    def test_no_order_is_better(self, seed):
        workload = STUDY.adjusted(STUDY.workloads()["tiny"], users=2, per_user=2, cache_tokens=1500)
        trace = workload.trace(seed)

        class Fixed(OracleMeanOrder):
            clairvoyant = False

            def reset(self, spec, rng):
                self.validate()
                self.spec_, self.turns_, self.is_exact_ = spec, list(self.given), True

        means = []
        for order in permutations(range(len(trace))):
            policy = Fixed()
            policy.given = order
            done, _ = serve(policy, trace.requests(), workload.spec(trace), np.random.default_rng(0))
            means.append(np.mean([r.finish_s - r.arrival for r in done]))
        found = run_task(STUDY, {"it": OracleMeanOrder}, workload, seed)[1][0].outcome
        assert found.metrics["mean_latency_s"] == pytest.approx(min(means), rel=1e-9)

    @pytest.mark.parametrize("seed", range(6))
    def test_its_model_of_the_cache_is_the_managers(self, seed):
        workload = STUDY.workloads()["tiny"]
        trace = workload.trace(seed)
        import msgspec

        policy = OracleMeanOrder()
        told = msgspec.structs.replace(workload.spec(trace), future=trace.future())
        done, _ = serve(policy, trace.requests(), told, np.random.default_rng(0))
        assert np.mean([r.finish_s - r.arrival for r in done]) == pytest.approx(policy.mean_s_, rel=1e-9)

    def test_each_instance_has_its_own_future(self):
        workload = STUDY.adjusted(STUDY.workloads()["tiny"], users=4, per_user=3, instances=2)
        rows = {cls.__name__: run_task(STUDY, {"it": cls}, workload, 0)[1][0].outcome for cls in (OracleMeanOrder, CalibratedSJF, FCFS)}
        assert not any(row.violations for row in rows.values())
        assert rows["OracleMeanOrder"].metrics["mean_latency_s"] <= min(row.metrics["mean_latency_s"] for row in rows.values())

    def test_of_too_many_requests_it_serves_the_shortest_first(self):
        workload = STUDY.adjusted(STUDY.workloads()["tiny"], users=4, per_user=5)
        cost = workload.spec(workload.trace(0)).cost
        sjf = CalibratedSJF(0.0, Seconds(cost))
        found, same = (run_task(STUDY, {"it": make}, workload, 0)[1][0].outcome for make in (OracleMeanOrder, lambda: sjf))
        assert not found.violations
        assert found.metrics == same.metrics

    def test_needs_the_future(self):
        with pytest.raises(InputError, match="got no future"):
            ready(OracleMeanOrder())


def test_short_prompts_share_a_step_and_long_ones_have_it_alone():
    lengths = [20, 300, 30, 40, 49, 50, 10]
    requests = [job(i, n, i, 0) for i, n in enumerate(lengths)]
    cost = CostModel(0.5, 1e-3, 0.0, 0.0, 0.0)
    together = EngineSpec(BLOCK, 1000, 1000, 3, cost, batch_below=50)
    done, core = serve(FCFS(), requests, together, np.random.default_rng(0))
    starts = [round(r.admitted_s, 6) for r in sorted(done, key=lambda r: r.id)]
    assert starts == [0, 0.52, *[1.32] * 3, 1.939, 2.489]  # nobody overtakes a long prompt
    assert core.steps == 5
    _, alone = serve(FCFS(), [job(i, n, i, 0) for i, n in enumerate(lengths)], spec(), np.random.default_rng(0))
    assert alone.steps == len(lengths)


def test_a_workload_packs_short_prompts():
    small = STUDY.workloads()["smoke"]
    packed = STUDY.adjusted(small, batch_below="2000")
    assert (packed.spec(packed.trace(0)).batch_below, packed.spec(packed.trace(0)).max_running) == (2000, 64)
    at_once = STUDY.adjusted(packed, gap_s=0)
    for workload in (packed, at_once):
        outcome = STUDY.trial(CalibratedSJF(), workload, 0)
        assert not outcome.violations
        assert outcome.metrics["busy_share"] <= 1
        assert outcome.metrics["mean_latency_s"] >= STUDY.bound(workload, 0).value


def test_users_stay_on_their_instance():
    requests = [Request(i, 5, 1, float(i), program=f"u{user}") for i, user in enumerate([3, 3, 1, 2, 3, 1])]
    assert [[r.id for r in each] for each in route(requests, 2)] == [[0, 1, 3, 4], [2, 5]]


def test_memory_model_ranks_the_modes_as_measured():
    for shape in SHAPES.values():
        plain, chunked, hybrid = (shape.longest(mode) for mode in ("plain", "chunked", "hybrid"))
        assert hybrid > 3 * plain and hybrid > 1.8 * chunked and chunked > 1.5 * plain


def test_prompt_over_the_longest_length_is_refused_before_anything_runs():
    workload = STUDY.adjusted(STUDY.workloads()["credit"], mode="plain")
    with pytest.raises(InputError, match="plain prefilling on qwen32b-a100 takes at most"):
        workload.spec(workload.trace(0))


def test_paper_workloads_have_their_published_sizes():
    post = STUDY.workloads()["post"].trace(0)
    assert len(post) == 1000 and 13e6 < post.n_input.sum() < 15e6
    gaps = [np.diff(post.arrival_s[[i for i, p in enumerate(post.program) if p == user]]) for user in set(post.program)]
    assert all(np.allclose(each, 0.05) for each in gaps)
    credit = STUDY.workloads()["credit"].trace(0)
    assert len(credit) == 60 and 2.7e6 < credit.n_input.sum() < 3.3e6 and credit.n_input.min() >= 40_000


@pytest.mark.parametrize(
    ("settings", "said"), [({"mode": "fast"}, "mode must be one of"), ({"lam": 1}, "no parameter"), ({"load": -1}, "load must be")]
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        STUDY.adjusted(STUDY.workloads()["smoke"], **settings)


def test_load_is_a_multiple_of_the_queued_throughput():
    one = PrefillWorkload(name="x", is_generated=True, users=300, per_user=2)
    spans = [replace(one, load=load).trace(0).arrival_s[-1] for load in (1.0, 4.0)]
    assert spans[0] / spans[1] == pytest.approx(4.0, rel=0.01)
