"""Budgets of verified attention: hand-computed sizes, monotonicities, coverage against dense attention."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudchamber.attention.verified.coverage import Coverage, clopper_pearson
from cloudchamber.attention.verified.model import BudgetDecision, BudgetSpec, PilotStats, normal_quantile, settled, spread_quantile
from cloudchamber.attention.verified.optimum import frontier, least_density, most_failures
from cloudchamber.attention.verified.pilot import effective_rank, pilot_stats
from cloudchamber.attention.verified.policies.adaptive_denominator import AdaptiveDenominator
from cloudchamber.attention.verified.policies.fixed import FixedBudget
from cloudchamber.attention.verified.policies.hoeffding import HoeffdingBudget
from cloudchamber.attention.verified.policies.importance import ImportanceBudget
from cloudchamber.attention.verified.policies.paper import PaperBudget
from cloudchamber.attention.verified.policies.ratio import RatioBudget
from cloudchamber.attention.verified.simulator import LEVEL, errors, repaired, run
from cloudchamber.attention.verified.study import VerifiedStudy
from cloudchamber.attention.verified.workloads import VerifiedWorkload
from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.parallel import study

PILOT = PilotStats(
    n=1100, n_s=1000, b0=50, head_dim=8, denominator=500.0, numerator_norm=400.0, variance_a=0.04, trace_av=0.4, rank_av=5.0,
    trace_error=0.1, rank_error=4.0, radius_error=1.5,
)  # fmt: skip
KINDS = ("flat", "normal", "heavy", "zero-mean", "mixture", "drift", "alike")
RULES = (
    RatioBudget,
    ImportanceBudget,
    PaperBudget,
    lambda: PaperBudget("N"),
    lambda: PaperBudget("D"),
    AdaptiveDenominator,
    HoeffdingBudget,
)


def ready(policy, **spec):
    policy.reset(BudgetSpec(**spec), np.random.default_rng(0))
    return policy


def scene(source="normal", n=2048, samples=200, **params):
    return VerifiedWorkload(name=source, source=source, n=n, head_dim=32, sink=32, window=32, samples=samples, is_generated=True, **params)


def test_denominator_rules_by_hand():
    z1, z2 = normal_quantile(0.9), normal_quantile(0.95)
    assert (z1, z2) == pytest.approx((1.28155, 1.64485), abs=1e-5)
    code, paper = ready(AdaptiveDenominator()).budget(PILOT, 1000), ready(PaperBudget("D")).budget(PILOT, 1000)
    wanted = (0.2 * 1000 / (0.1 * 500)) ** 2  # (deviation · n_s / (epsilon · D))²
    assert wanted == pytest.approx(16)
    assert (code.b, code.reason) == (50, "floor") and paper.b == 50
    tight = ready(PaperBudget("D"), epsilon=0.02).budget(PILOT, 1000)
    assert tight.b == 1000 and tight.reason == "dense" and tight.bound == 0
    assert ready(AdaptiveDenominator(), epsilon=0.04).budget(PILOT, 1000).b == math.ceil(z1**2 * 100)


def test_ratio_rule_by_hand():
    epsilon, delta = 0.2, 0.1
    least = 400 - 1000 * math.sqrt(spread_quantile(0.95, 5.0) * 0.4 / 50 * 0.95)
    endless = spread_quantile(0.95, 4.0) * 1000**2 * 0.1 / (epsilon * least) ** 2
    found = ready(RatioBudget(), epsilon=epsilon, delta=delta).budget(PILOT, 1000)
    assert found.b == math.ceil(endless * 1000 / (endless + 1000)) and found.reason == "clt"
    assert found.bound <= epsilon < found.bound * 1.05


def test_a_norm_that_may_be_zero_is_read_in_full_or_capped_without_a_bound():
    pilot = msgspec.structs.replace(PILOT, numerator_norm=1.0)
    assert ready(RatioBudget()).budget(pilot, 1000) == BudgetDecision(1000, "dense", 0.0)
    assert ready(RatioBudget(), cap=0.5).budget(pilot, 1000) == BudgetDecision(500, "capped", math.inf)


def test_a_capped_budget_says_so_with_the_bound_it_reaches():
    free, capped = (ready(RatioBudget(), cap=cap).budget(PILOT, 1000) for cap in (1.0, 0.2))
    assert free.b > 200 and capped.b == 200 and capped.reason == "capped" and capped.bound > 0.1 >= free.bound


def test_paper_budget_takes_the_best_split():
    pilot, spec = PILOT, BudgetSpec(epsilon=0.5)
    least = math.inf
    for i in range(1, 20):
        for j in range(1, 10):
            e1, e2 = 0.25 * i / 20, 0.25 * (20 - i) / 20
            d1, d2 = 0.1 * j / 10, 0.1 * (10 - j) / 10
            n = (normal_quantile(1 - d1 / 2) * 1000 / (e1 * 400)) ** 2 * 0.4
            d = (normal_quantile(1 - d2 / 2) * 1000 / (e2 * 500)) ** 2 * 0.04
            least = min(least, max(n, d))
    policy = PaperBudget()
    policy.reset(spec, None)
    assert policy.budget(pilot, 1000).b == math.ceil(least) < 1000


def test_hoeffding_is_above_the_ratio_rule():
    assert ready(HoeffdingBudget()).budget(PILOT, 1000).b > ready(RatioBudget()).budget(PILOT, 1000).b


pilots = st.builds(
    lambda norm, trace, share, rank, radius: PilotStats(
        11000, 10000, 100, 64, 3000.0, 3000 * norm, 0.01 * trace, trace, rank, share * trace, rank, radius * math.sqrt(trace)
    ),
    st.floats(0.01, 3), st.floats(1e-6, 10), st.floats(0.01, 1), st.floats(1, 64), st.floats(1, 8),
)  # fmt: skip
shares = st.floats(0.01, 0.5)


@pytest.mark.parametrize("rule", RULES, ids=("ratio", "importance", "paper", "numerator", "denominator", "public code", "hoeffding"))
@given(pilot=pilots, first=shares, second=shares, delta=shares)
def test_a_looser_promise_never_needs_more(rule, pilot, first, second, delta):
    small, large = sorted((first, second))
    b = [ready(rule(), epsilon=epsilon, delta=delta).budget(pilot, 10000).b for epsilon in (small, large)]
    assert b[0] >= b[1]
    b = [ready(rule(), epsilon=delta, delta=each).budget(pilot, 10000).b for each in (small, large)]
    assert b[0] >= b[1]


@pytest.mark.parametrize("rule", RULES, ids=("ratio", "importance", "paper", "numerator", "denominator", "public code", "hoeffding"))
@given(pilot=pilots, factor=st.floats(1, 100))
def test_more_variance_never_needs_less(rule, pilot, factor):
    spread = {name: factor * getattr(pilot, name) for name in ("variance_a", "trace_av", "trace_error")}
    wider = msgspec.structs.replace(pilot, **spread, radius_error=pilot.radius_error * math.sqrt(factor))
    assert ready(rule()).budget(wider, 10000).b >= ready(rule()).budget(pilot, 10000).b


@pytest.mark.parametrize("rule", RULES, ids=("ratio", "importance", "paper", "numerator", "denominator", "public code", "hoeffding"))
@given(pilot=pilots, power=st.integers(-20, 20))
def test_a_common_factor_of_all_weights_changes_nothing(rule, pilot, power):
    assume(rule is not AdaptiveDenominator or pilot.variance_a * 4.0**power > 1e-12)  # below the code's least deviation
    c = 2.0**power
    scaled = msgspec.structs.replace(
        pilot, denominator=c * pilot.denominator, numerator_norm=c * pilot.numerator_norm, variance_a=c * c * pilot.variance_a,
        trace_av=c * c * pilot.trace_av, trace_error=c * c * pilot.trace_error, radius_error=c * pilot.radius_error,
    )  # fmt: skip
    assert ready(rule()).budget(scaled, 10000).b == ready(rule()).budget(pilot, 10000).b


@given(st.integers(0, 10**6))
def test_pilot_numbers_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    a, v = rng.random((1, 6)), rng.standard_normal((1, 6, 3))
    numerator, denominator = rng.standard_normal((1, 3)), rng.random(1)
    (found,) = pilot_stats(a, v, numerator, denominator, 60, 70)
    av = a[0, :, None] * v[0]
    total, mass = numerator[0] + 10 * av.sum(axis=0), denominator[0] + 10 * a.sum()
    e = av - a[0, :, None] * total / mass
    assert (found.denominator, found.numerator_norm) == pytest.approx((mass, np.linalg.norm(total)))
    for trace, rank, x in ((found.trace_av, found.rank_av, av), (found.trace_error, found.rank_error, e)):
        c = np.cov(x, rowvar=False)
        assert (trace, rank) == pytest.approx((np.trace(c), np.trace(c) ** 2 / np.trace(c @ c)))
    assert found.variance_a == pytest.approx(a[0].var(ddof=1))
    assert found.radius_error == pytest.approx(np.linalg.norm(e - e.mean(axis=0), axis=1).max())


def test_effective_rank_survives_tiny_and_constant_samples():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 200, 8)).astype(np.float32)
    assert effective_rank(x * np.float32(1e-18))[0] == pytest.approx(effective_rank(x)[0], rel=1e-4)
    assert effective_rank(np.zeros((1, 5, 3)))[0] == 1.0


def test_clopper_pearson_by_its_definition():
    low, high = clopper_pearson(3, 20, 0.9)
    tail = lambda p, ks: sum(math.comb(20, k) * p**k * (1 - p) ** (20 - k) for k in ks)  # noqa: E731
    assert (tail(low, range(3, 21)), tail(high, range(4))) == pytest.approx((0.05, 0.05))
    counted = Coverage()
    for failed in (True, False, False, False):
        counted.add(failed=failed)
    assert counted.failure_rate == 0.25 and counted.interval(0.9)[0] < 0.25 < counted.interval(0.9)[1]
    assert Coverage().failure_rate == 0 and clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("source", KINDS)
def test_errors_are_those_of_attention_over_the_sample(source):
    for head in scene(source, n=300, samples=24).instance(0):
        b = np.linspace(head.pilots[0].b0, head.n_s, len(head.ranks)).astype(int)
        found, denominator = errors(head, b)
        for t in range(len(b)):
            weight = np.where(head.ranks[t] < b[t], head.n_s / b[t], 0.0)
            total, true = head.anyway + weight @ head.terms, head.anyway + head.terms.sum(axis=0)
            o, exact = total[:-1] / total[-1], true[:-1] / true[-1]
            assert found[t] == pytest.approx(np.linalg.norm(o - exact) / np.linalg.norm(exact), abs=1e-12)
            assert denominator[t] == pytest.approx(abs(total[-1] / true[-1] - 1), abs=1e-12)
        assert found[-1] == 0.0


def failures(policy, workload, seed=0):
    spec = workload.spec
    done = run(policy, spec, workload.instance(seed), np.random.default_rng(0))
    return int((done.error > spec.epsilon).sum()), len(done.error), done


@pytest.mark.parametrize("promise", [(0.1, 0.1), (0.2, 0.05)])
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("rule", [RatioBudget, ImportanceBudget, PaperBudget])
def test_the_promise_is_kept(rule, source, promise):
    failed, count, _ = failures(rule(), scene(source, epsilon=promise[0], delta=promise[1]))
    assert clopper_pearson(failed, count, LEVEL)[0] <= promise[1]


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("rule", [RatioBudget, ImportanceBudget, PaperBudget])
def test_every_promise_is_kept(rule, source, epsilon, delta):
    failed, count, _ = failures(rule(), scene(source, n=4096, samples=1000, epsilon=epsilon, delta=delta), seed=1)
    assert clopper_pearson(failed, count, LEVEL)[0] <= delta


@pytest.mark.parametrize("source", ["flat", "normal"])
def test_the_public_codes_rule_keeps_the_denominator_and_breaks_the_output(source):
    failed, count, done = failures(AdaptiveDenominator(), scene(source, n=8192))
    assert failed / count > 0.9
    assert clopper_pearson(int((done.denominator_error > 0.1).sum()), count, LEVEL)[0] <= 0.2


@pytest.mark.parametrize("source", ["flat", "normal"])
def test_ratio_budget_reads_at_most_two_fifths_of_the_papers(source):
    workload = scene(source, n=8192, samples=60)
    ours, paper = (failures(rule(), workload)[2].density.mean() for rule in (RatioBudget, PaperBudget))
    assert ours <= 0.4 * paper


def test_error_follows_epsilon():
    epsilons = (0.05, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3)
    means = [failures(RatioBudget(), scene(n=4096, samples=60, epsilon=each))[2].error.mean() for each in epsilons]
    rank = np.argsort(np.argsort(means))
    assert np.corrcoef(rank, np.arange(8))[0, 1] >= 0.95


def test_repair_charges_only_what_contradicts_the_promise():
    assert repaired(0.3, 0, 100, 0.1) == (0.3, 0.0)
    allowed = most_failures(100, 0.1)
    assert repaired(0.3, math.floor(allowed * 100) - 1, 100, 0.1)[0] == 0.3
    cost, low = repaired(0.3, 50, 100, 0.1)
    assert cost == pytest.approx(0.3 + (1 - 0.1 / low) * 0.7)


@pytest.mark.parametrize("source", ["normal", "mixture"])
def test_no_fixed_size_beats_the_bound(source):
    workload = scene(source, n=1024, samples=120, epsilon=0.2)
    heads = workload.instance(0)
    least = least_density(heads, workload.spec)
    costs = []
    for share in np.linspace(0.05, 1, 24):
        failed, count, done = failures(FixedBudget(float(share)), workload)
        costs.append(repaired(float(done.density.mean()), failed, count, workload.delta)[0])
    assert least <= min(costs) + 1e-9 and min(costs) < 1.4 * least
    assert (np.diff(frontier(heads[0], 0.2).b) > 0).all()


def test_draws_by_chances_are_unbiased_and_keep_the_pilots_numbers():
    (head,) = scene("normal", n=600, samples=400).instance(0)
    p = head.draws.chances
    assert p.sum() == pytest.approx(1) and p.min() >= 0.5 / head.n_s - 1e-12
    weights = head.weights(np.arange(400), np.full(400, 150), "importance")
    sums = weights @ head.terms
    assert weights.sum(axis=1).mean() == pytest.approx(head.n_s, rel=0.02)
    deviation = sums.std(axis=0, ddof=1) / 20
    assert (np.abs(sums.mean(axis=0) - head.terms.sum(axis=0)) < 4.5 * deviation).all()
    some = head.draws.order[7, : head.pilots[0].b0]
    weight = 1 / (len(some) * p[some])
    total = head.anyway + weight @ head.terms[some]
    found = head.draws.pilots[7]
    assert (found.denominator, found.numerator_norm) == pytest.approx((total[-1], np.linalg.norm(total[:-1])))


def test_importance_reads_less_where_bounds_tell_pages_apart_and_keeps_its_promise():
    workload = scene("alike", n=8192, samples=100, top=0.0, epsilon=0.2)
    heads = workload.instance(0)
    done = {rule: run(rule(), workload.spec, heads, np.random.default_rng(0)) for rule in (RatioBudget, ImportanceBudget)}
    assert done[ImportanceBudget].density.mean() < 0.5 * done[RatioBudget].density.mean()
    assert clopper_pearson(int((done[ImportanceBudget].error > 0.2).sum()), 100, LEVEL)[0] <= 0.1


def test_importance_by_hand_has_no_finite_population():
    least = 400 - 1000 * math.sqrt(spread_quantile(0.95, 5.0) * 0.4 / 50)
    endless = spread_quantile(0.95, 4.0) * 1000**2 * 0.1 / (0.2 * least) ** 2
    assert ready(ImportanceBudget(), epsilon=0.2).budget(PILOT, 1000).b == math.ceil(endless)


def test_a_key_drawn_twice_is_read_once():
    (head,) = scene("normal", n=600, samples=20).instance(0)
    b = np.full(20, 200)
    distinct = [len(set(row[:200].tolist())) for row in head.draws.order]
    assert head.density(b, "importance") * 600 == pytest.approx(600 - head.n_s + np.array(distinct))
    assert (head.density(np.full(20, head.n_s), "importance") == 1).all()


def test_a_way_of_sampling_that_is_none_is_refused():
    policy = RatioBudget()
    policy.sampling = "luck"
    with pytest.raises(InputError, match="'uniform' or 'importance'"):
        run(policy, BudgetSpec(), [], np.random.default_rng(0))


class Answers:
    def __init__(self, answer):
        self.answer = answer

    def reset(self, spec, rng):
        pass

    def budget(self, pilot, n_s):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (40, "BudgetDecision"),
        (BudgetDecision(40.0, "clt", 0.1), "whole b"),
        (BudgetDecision(40, "luck", 0.1), "reason"),
        (BudgetDecision(1, "clt", 0.1), "between"),
        (BudgetDecision(10**6, "clt", 0.1), "between"),
    ],
)
def test_a_wrong_answer_is_refused_in_words(answer, words):
    workload = scene(n=300, samples=2)
    with pytest.raises(CandidateError, match=words):
        run(Answers(answer), workload.spec, workload.instance(0), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BudgetSpec(epsilon=0.0), "epsilon"),
        (lambda: BudgetSpec(epsilon=math.nan), "epsilon"),
        (lambda: BudgetSpec(delta=1.0), "delta"),
        (lambda: BudgetSpec(floor=1), "floor"),
        (lambda: BudgetSpec(cap=0.0), "cap"),
        (lambda: BudgetSpec(pilot=1.5), "pilot"),
        (lambda: ready(PaperBudget("o")), "target must be one of"),
        (lambda: ready(FixedBudget(2.0)), "share must be"),
        (lambda: VerifiedStudy().adjusted(scene(), colour=1), "no parameter"),
        (lambda: VerifiedStudy().adjusted(scene(), n="many"), "a number"),
        (lambda: VerifiedStudy().adjusted(scene(), source="real"), "source"),
        (lambda: VerifiedStudy().adjusted(scene(), top=2), "top"),
        (lambda: VerifiedStudy().adjusted(scene(), epsilon=2), "epsilon"),
        (lambda: scene(n=70).instance(0), "left to sample"),
    ],
)
def test_bad_numbers_name_what_is_allowed(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_settled_says_floor_where_fewer_would_do():
    found = settled(3.2, PILOT, 1000, BudgetSpec(), lambda b: 1 / b)
    assert (found.b, found.reason, found.bound) == (50, "floor", 0.02)


def test_the_study_shows_a_broken_promise_and_hides_nothing():
    results = study(VerifiedStudy(), workloads=["smoke"], seeds=2)
    rows = {row.policy: row for row in results.summary()}
    assert all(row.void == 0 for row in rows.values())
    assert rows["RatioBudget"].mean < rows["PaperBudget"].mean and rows["RatioBudget"].mean < rows["AdaptiveDenominator"].mean
    (code, *_) = results.of("smoke", "AdaptiveDenominator")
    assert code.outcome.metrics["failure_low"] > 0.1 and code.outcome.metrics["density"] < 0.2 and "broken" in code.outcome.feedback
    (figure,) = VerifiedStudy().figures(results)
    assert "AdaptiveDenominator" in figure.svg and "1.00" in figure.svg


def test_workload_says_what_it_is():
    assert "2,048 keys, dimension 32; error above 0.1 in at most 10% of 200 samples" in scene().summary
    assert VerifiedStudy().adjusted(scene(), n="4096", epsilon="0.2").name == "normal(n=4096,epsilon=0.2)"
