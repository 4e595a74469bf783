"""Selectors and their world: what is caught, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.attention.generators import GENERATORS, decay
from cloudchamber.attention.model import BlockIndex, Blocks, Grid, Scene, Selection, block_mass, kept, pooled
from cloudchamber.attention.policies.pooled_top_k import PooledTopK, pooled_scores
from cloudchamber.attention.policies.pooled_top_p import best_of_all
from cloudchamber.attention.policies.random_blocks import RandomBlocks
from cloudchamber.attention.policies.sliding_window import SinkWindow, SlidingWindow
from cloudchamber.attention.policies.spatial_temporal import SpatialTemporal
from cloudchamber.attention.simulator import attended, error, recall, run
from cloudchamber.attention.study import AttentionStudy
from cloudchamber.attention.workloads import AttentionWorkload
from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.parallel import study

SMOKE = AttentionStudy().workloads()["smoke"]


def scene_of(q, k, block=4, keep=2, grid=None):
    q, k = (np.asarray(each, np.float32) for each in (q, k))
    return Scene(q, k, Blocks.uniform(q.shape[1], block), Blocks.uniform(k.shape[1], block), keep, grid)


def test_window_reads_the_nearest_and_the_sink():
    scene = scene_of(np.zeros((1, 16, 4)), np.zeros((1, 16, 4)))
    assert SlidingWindow().select(scene).mask[0].tolist() == [
        [True, True, False, False], [True, True, False, False], [False, True, True, False], [False, False, True, True],
    ]  # fmt: skip
    assert SinkWindow().select(scene).mask[0, :, 0].all()


def test_pooled_bound_is_above_every_score_of_its_block():
    rng = np.random.default_rng(0)
    scene = scene_of(rng.standard_normal((2, 12, 8)), rng.standard_normal((2, 12, 8)))
    q = scene.pooled("q") / np.sqrt(8)
    true = (q @ scene.k.transpose(0, 2, 1)).reshape(2, 3, 3, 4).max(axis=3)
    assert (pooled_scores(scene, "bound") >= true - 1e-6).all()


def test_decay_logits_are_what_the_text_says():
    grid = Grid(3, 2, 4)
    made = decay(grid, 1, 16, np.random.default_rng(0), alpha=(0.7, 0.7), beta=(0.2, 0.2), noise=1e-12)
    logits = made.q[0].astype(np.float64) @ made.k[0].T / 4
    place = grid.positions()
    apart = np.abs(place[:, None] - place[None])
    expected = -0.7 * apart[..., 0] - 0.2 * (apart[..., 1] + apart[..., 2])
    shift = logits - expected
    assert np.abs(shift - shift[:, :1]).max() < 1e-4  # equal up to a constant of the row, which a softmax does not see


def test_a_head_that_looks_through_time_gets_the_temporal_mask():
    grid = Grid(8, 2, 4)
    rng = np.random.default_rng(1)
    near, far = (decay(grid, 1, 32, rng, alpha=(a, a), beta=(b, b), noise=0.01) for a, b in ((5.0, 0.01), (0.01, 5.0)))
    scene = scene_of(np.concatenate([near.q, far.q]), np.concatenate([near.k, far.k]), block=2, keep=4, grid=grid)
    policy = SpatialTemporal()
    policy.reset(None, np.random.default_rng(0))
    spatial, temporal = policy.select(scene).mask
    frame = np.arange(32) // 4
    assert (np.abs(frame[:, None] - frame[None])[spatial] <= 1).all() and len({*frame[np.flatnonzero(temporal[16])]}) == 4


@given(st.integers(0, 10**6), st.integers(1, 3))
def test_the_optimum_is_the_best_of_all_masks_at_its_budget(seed, keep):
    mass = np.random.default_rng(seed).dirichlet(np.ones(3), (1, 3))
    best = (mass * best_of_all(mass, keep)).sum()
    every = (np.array(bits).reshape(1, 3, 3) for bits in itertools.product((0, 1), repeat=9))
    fits = [(mass * mask).sum() for mask in every if mask.any(axis=2).all() and mask.sum() <= 3 * keep]
    assert best == pytest.approx(max(fits))


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 6))
def test_pooling_is_the_mean_of_each_block(seed, tokens, size):
    x = np.random.default_rng(seed).standard_normal((2, tokens, 3))
    blocks = Blocks.uniform(tokens, size)
    edges = blocks.starts()[0]
    expected = np.stack([x[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)], axis=1)
    assert pooled(x, blocks) == pytest.approx(expected)


def test_empty_blocks_pool_to_nothing_and_catch_nothing():
    blocks = Blocks(np.array([[2, 0, 3]]))
    x = np.ones((1, 5, 2))
    assert pooled(x, blocks)[0].tolist() == [[1, 1], [0, 0], [1, 1]]
    mass = block_mass(x, x, blocks, blocks)
    assert mass[0, 0].tolist() == pytest.approx([0.4, 0, 0.6])


@given(st.integers(0, 1000))
def test_more_blocks_never_lower_recall(seed):
    instance = SMOKE.instance(seed % 3)
    scores = np.random.default_rng(seed).random(instance.mass.shape)
    found = [recall(kept(scores, keep), instance) for keep in range(1, 9)]
    assert (np.diff(found, axis=0) >= -1e-12).all() and found[-1] == pytest.approx(1.0)


def test_reading_everything_is_dense_attention():
    instance = SMOKE.instance(0)
    assert error(np.ones(instance.mass.shape, bool), instance) < 1e-12


def test_error_is_that_of_a_softmax_over_what_is_read():
    instance = SMOKE.instance(1)
    scene, tensors = instance.scene, instance.tensors
    mask = kept(np.random.default_rng(0).random(instance.mass.shape), 2)
    index = BlockIndex.of(mask, scene.q_blocks, scene.k_blocks)
    row = 5
    keys = np.flatnonzero(index.to_mask()[1, row])
    logits = tensors.k[1, keys].astype(float) @ tensors.q[1, row] / np.sqrt(tensors.q.shape[2])
    p = np.exp(logits - logits.max())
    assert attended(tensors, index)[1, row] == pytest.approx(p @ tensors.v[1, keys] / p.sum())


class Answers:
    def __init__(self, answer):
        self.answer = answer

    def reset(self, spec, rng):
        pass

    def select(self, scene):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "Selection"),
        (Selection(np.ones((2, 8, 8))), "booleans"),
        (Selection(np.ones((1, 8, 7), bool)), "shape"),
        (Selection(np.zeros((1, 8, 8), bool)), "reads no key block"),
        (Selection(np.ones((1, 8, 8), bool)), "budget"),
    ],
)
def test_a_wrong_answer_is_refused_in_words(answer, words):
    with pytest.raises(CandidateError, match=words):
        run(Answers(answer), SMOKE.spec, SMOKE.instance(0), np.random.default_rng(0))


def test_bad_parameters_name_what_is_allowed():
    with pytest.raises(InputError, match="pool must be one of"):
        PooledTopK("median").reset(None, None)
    for params, words in (
        ({"color": 1}, "no parameter"),
        ({"heads": "x"}, "a number"),
        ({"density": 2}, "at most 1"),
        ({"block": 0}, "above 0"),
    ):
        with pytest.raises(InputError, match=words):
            AttentionStudy().adjusted(SMOKE, **params)
    with pytest.raises(InputError, match="whole number"):
        Grid(0, 1, 1)


def test_every_generator_makes_finite_float32_from_its_seed():
    for name, make in GENERATORS.items():
        first, again = (make(Grid(4, 4, 4), 2, 32, np.random.default_rng(3)) for _ in range(2))
        assert first.q.dtype == np.float32 and all(np.isfinite(each).all() for each in (first.q, first.k, first.v)), name
        assert np.array_equal(first.q, again.q) and np.array_equal(first.v, again.v)


def test_no_selector_beats_the_optimum_and_means_beat_the_lot_on_decay():
    results = study(AttentionStudy(), workloads=["smoke"], seeds=2)
    rows = {row.policy: row for row in results.summary()}
    assert all(row.void == 0 for row in rows.values())
    assert rows["PooledTopK"].mean > 1.5 * rows["RandomBlocks"].mean
    assert rows["OracleTopP"].ratio == pytest.approx(1.0)


def test_random_blocks_differ_by_seed_only():
    instance = SMOKE.instance(0)
    masks = [run(RandomBlocks(), SMOKE.spec, instance, np.random.default_rng(seed)).mask for seed in (1, 1, 2)]
    assert np.array_equal(masks[0], masks[1]) and not np.array_equal(masks[0], masks[2])


def test_workload_says_what_it_is():
    assert "4 heads over 8 x 8 x 16 tokens" in AttentionWorkload(name="x", source="iid").summary
