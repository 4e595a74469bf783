"""Sparse VideoGen2: clusters, the top-p rule, what is caught, bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from cloudchamber.attention.model import block_mass, scale_of
from cloudchamber.attention.svg2.clustering import batch_kmeans
from cloudchamber.attention.svg2.model import ClusterSpec, Kept, top_p
from cloudchamber.attention.svg2.optimum import least_density
from cloudchamber.attention.svg2.policies.calibrated import CalibratedTopP
from cloudchamber.attention.svg2.policies.fixed import KeepAll
from cloudchamber.attention.svg2.policies.top_p import CentroidTopP
from cloudchamber.attention.svg2.simulator import error, index_of, recall, repaired, run
from cloudchamber.attention.svg2.study import Svg2Study
from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.parallel import study

STUDY = Svg2Study()
SMOKE = STUDY.workloads()["smoke"]


def test_top_p_keeps_the_one_that_crosses():
    prob = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert top_p(prob, 0.5).tolist() == [[True, True, False], [False, False, True]]
    assert top_p(prob, 0.0).sum() == 2 and top_p(prob, 1.0).all() and top_p(prob, 0.0, 0.7).sum(axis=1).tolist() == [2, 2]


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_top_p_sums_to_p_and_is_the_smallest_set(seed, p):
    prob = np.random.default_rng(seed).dirichlet(np.ones(7) * 0.5, 4)
    mask = top_p(prob, p)
    sums = (prob * mask).sum(axis=1)
    assert (sums >= min(p, 1 - 1e-9)).all()
    smallest = np.where(mask, prob, np.inf).min(axis=1)
    assert ((sums - smallest <= p + 1e-12) | (p >= 1)).all()


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_labels_are_those_of_the_nearest_centres_returned(seed, k):
    x = np.random.default_rng(seed).standard_normal((2, 30, 3))
    made = batch_kmeans(x, k, iterations=2)
    apart = ((x[:, :, None] - made.centres[:, None]) ** 2).sum(axis=3)
    assert np.take_along_axis(apart, made.labels[..., None], axis=2).sum() == pytest.approx(made.inertia)
    assert made.inertia == pytest.approx(apart.min(axis=2).sum())


def test_inertia_is_near_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 5))[rng.integers(8, size=400)] * 3 + rng.standard_normal((400, 5))
    theirs = KMeans(8, n_init=1, random_state=0).fit(x).inertia_
    ours = batch_kmeans(x[None], 8).inertia
    assert ours <= 1.1 * theirs
    same = batch_kmeans(x[None], 8, init=x[None, :8]).inertia
    assert same == pytest.approx(KMeans(8, init=x[:8], n_init=1, max_iter=50).fit(x).inertia_, rel=0.02)


def test_equal_rows_make_one_full_cluster_and_end():
    made = batch_kmeans(np.ones((1, 20, 3)), 4)
    assert sorted(made.blocks().sizes[0].tolist()) == [0, 0, 0, 20] and made.inertia == pytest.approx(0)


def test_two_warm_iterations_do_after_a_small_drift():
    rng = np.random.default_rng(0)
    groups = rng.standard_normal((24, 64)) * 1.6
    label = rng.integers(24, size=2048)
    x = (groups[label] + 0.8 * rng.standard_normal((2048, 64)))[None]
    cold = batch_kmeans(x, 32)
    moved = x + 0.1 * 1.6 * rng.standard_normal(groups.shape)[label][None]
    warm = batch_kmeans(moved, 32, init=cold.centres, iterations=2)
    assert warm.inertia <= 1.05 * batch_kmeans(moved, 32, iterations=50).inertia


@pytest.mark.parametrize(
    ("x", "k", "init", "words"),
    [
        (np.zeros((1, 3, 2)), 4, "random", "at least 4 rows"),
        (np.full((1, 3, 2), np.nan), 2, "random", "finite"),
        (np.zeros((1, 3, 2)), 2, np.zeros((1, 3, 2)), "centres must have the shape"),
    ],
)
def test_bad_input_to_clustering_is_refused(x, k, init, words):
    with pytest.raises(InputError, match=words):
        batch_kmeans(x, k, init=init)


@pytest.mark.parametrize("seed", [0, 1])
def test_blocks_are_permutations_and_the_truth_is_that_of_the_tokens(seed):
    instance = SMOKE.instance(seed)
    for blocks in (instance.q_blocks, instance.k_blocks):
        assert (np.sort(blocks.order, axis=1) == np.arange(blocks.tokens)).all() and (blocks.sizes.sum(axis=1) == blocks.tokens).all()
    h = 1
    logits = instance.tensors.q[h].astype(float) @ instance.tensors.k[h].T * scale_of(SMOKE.head_dim)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mask = CentroidTopP().keep(_view(instance, h)).mask
    full = index_of(np.stack([mask, mask]), instance).to_mask()[h]
    caught = recall(np.stack([mask, mask]), instance)[h]
    assert caught == pytest.approx((p * full).sum(axis=1).mean())
    rows, masses = instance.views[h].sample_row, instance.views[h].sample_mass
    assert masses.sum(axis=1) == pytest.approx(1.0) and rows.max() < SMOKE.n_q


def _view(instance, head, p=0.9):
    import msgspec

    return msgspec.structs.replace(instance.views[head], p=p)


def test_what_is_missing_is_charged_as_reading_by_lot():
    assert repaired(np.array([0.2, 0.2]), np.array([0.5, 0.9]), 0.85).tolist() == pytest.approx([0.2 + 0.8 * 0.7, 0.2])


def test_keeping_everything_is_dense_attention():
    instance = SMOKE.instance(0)
    masks = run(KeepAll(), ClusterSpec(0.9, 2), instance, np.random.default_rng(0))
    assert error(masks, instance) < 1e-12 and recall(masks, instance) == pytest.approx(1.0)
    assert index_of(masks, instance).density() == pytest.approx(1.0)


def test_renaming_clusters_changes_nothing():
    view = _view(SMOKE.instance(0), 0)
    order = np.random.default_rng(0).permutation(view.prob.shape[1])
    import msgspec

    renamed = msgspec.structs.replace(
        view, prob=view.prob[:, order], spread=view.spread[:, order], sizes_k=view.sizes_k[order], sample_mass=view.sample_mass[:, order]
    )
    for policy in (CentroidTopP(), CalibratedTopP()):
        policy.reset(ClusterSpec(0.9, 1), np.random.default_rng(0))
        assert np.array_equal(policy.keep(view).mask[:, order], policy.keep(renamed).mask)


@pytest.mark.parametrize("name", ["kmeans", "tiles", "raster", "kmeans-decay", "shuffled"])
def test_the_calibrated_rule_delivers_what_is_asked_for(name):
    workload = STUDY.adjusted(STUDY.workloads()[name], frames=4, height=8, width=16, heads=8, n_q=16, n_k=16)
    instance = workload.instance(0)
    found = recall(run(CalibratedTopP(), ClusterSpec(0.9, 8), instance, np.random.default_rng(0)), instance)
    assert (found >= 0.85).mean() >= 0.95


def test_the_estimate_alone_is_no_guarantee():
    """Pinned: on tiles the published rule catches far less than the p it was given."""
    instance = STUDY.workloads()["tiles"].instance(0)
    found = recall(run(CentroidTopP(), ClusterSpec(0.9, 2), instance, np.random.default_rng(0)), instance)
    assert found.max() < 0.8


@given(st.integers(0, 500), st.floats(0.3, 0.99))
def test_no_mask_beats_the_bound(seed, p):
    instance = SMOKE.instance(seed % 2)
    scores = np.random.default_rng(seed).random(instance.mass.shape) * instance.mass
    masks = np.stack([top_p(each / each.sum(axis=1, keepdims=True), p) for each in scores])
    least = float(recall(masks, instance).min())
    assert index_of(masks, instance).density() >= least_density(instance, least) - 1e-9


def test_clusters_need_a_fraction_of_what_tiles_need():
    rows = {
        (row.workload, row.policy): row for row in study(STUDY, ["CalibratedTopP", "OracleMass"], ["kmeans", "tiles"], seeds=1).summary()
    }
    assert rows["kmeans", "CalibratedTopP"].mean < 0.2 * rows["tiles", "OracleMass"].mean


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "Kept"),
        (Kept(np.ones((8, 12))), "booleans"),
        (Kept(np.ones((8, 11), bool)), "shape"),
        (Kept(np.zeros((8, 12), bool)), "reads no key"),
    ],
)
def test_wrong_answers_are_refused_in_words(answer, words):
    class Wrong:
        def reset(self, spec, rng):
            pass

        def keep(self, view):
            return answer

    with pytest.raises(CandidateError, match=words):
        run(Wrong(), ClusterSpec(0.9, 2), SMOKE.instance(0), np.random.default_rng(0))


def test_bad_parameters_of_a_workload_are_refused():
    for params, words in (
        ({"colour": 1}, "no parameter"),
        ({"cut": "x"}, "cut must be"),
        ({"p": 2}, "between 0 and 1"),
        ({"n_k": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            STUDY.adjusted(SMOKE, **params)


def test_masses_of_blocks_of_different_heads_are_their_own():
    instance = SMOKE.instance(0)
    both = block_mass(instance.tensors.q, instance.tensors.k, instance.q_blocks, instance.k_blocks)
    second = block_mass(instance.tensors.q[1:], instance.tensors.k[1:], instance.q_blocks.of_head(1), instance.k_blocks.of_head(1))
    assert np.allclose(both[1], second[0])
