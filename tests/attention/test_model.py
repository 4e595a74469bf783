"""The nouns: what an index says, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.attention.model import BlockIndex, Blocks, Grid, Rows, changed, kept, pooled
from cloudchamber.core.errors import InputError
from tests.attention.cases import random_index

SIZES = st.sampled_from([None, 1, 5, 16])


def test_rows_of_a_mask_by_hand():
    rows = Rows.of(np.array([[[True, False, True], [False, True, False]]]))
    assert rows.indptr.tolist() == [0, 2, 3]
    assert rows.indices.tolist() == [0, 2, 1]
    assert rows.transpose(1, 3).indptr.tolist() == [0, 1, 2, 3]
    assert rows.transpose(1, 3).indices.tolist() == [0, 1, 0]


def test_a_plan_joins_neighbours_of_one_weight():
    index = BlockIndex.of(np.array([[[True, True, False, True]]]), Blocks.uniform(4, 4), Blocks.uniform(14, 4))
    plan = Plan.of(index)
    assert list(zip(plan.start, plan.stop, strict=True)) == [(0, 8), (12, 14)]
    heavier = Plan.of(changed(index, log_weight=np.array([0.0, 1.0, 1.0], np.float32)))
    assert list(zip(heavier.start, heavier.stop, heavier.weight, strict=True)) == [(0, 4, 0.0), (4, 8, 1.0), (12, 14, 1.0)]


def test_a_grid_names_its_positions():
    assert Grid(2, 1, 2, text=3).tokens == 7
    assert Grid(2, 1, 2).positions().tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]
    with pytest.raises(InputError, match="at least 1"):
        Grid(0)


def test_pooling_knows_the_true_size_of_a_block():
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    blocks = Blocks(np.array([[4, 0, 2]], np.int32))
    assert pooled(x, blocks).ravel().tolist() == [1.5, 0.0, 4.5]
    assert pooled(x, blocks, "max").ravel().tolist() == [3.0, 0.0, 5.0]


@given(SIZES, st.integers(1, 3), st.integers(0, 99))
def test_density_is_the_mean_of_the_mask(size, heads, seed):
    index = random_index(37, 50, heads=heads, size=size, seed=seed)
    assert index.density() == pytest.approx(index.to_mask().mean())


@given(SIZES, st.integers(1, 3), st.integers(0, 99))
def test_swapping_transposes_the_mask_and_keeps_the_weights(size, heads, seed):
    index = random_index(37, 50, heads=heads, size=size, weighted=True, seed=seed)
    swapped = index.swapped()
    assert np.array_equal(swapped.to_mask(), index.to_mask().transpose(0, 2, 1))
    again = swapped.swapped()
    assert np.array_equal(again.rows.indices, index.rows.indices)
    assert np.array_equal(again.log_weight, index.log_weight)


@given(SIZES, st.integers(1, 3), st.integers(0, 99))
def test_a_plan_reads_what_the_mask_says(size, heads, seed):
    index = random_index(37, 50, heads=heads, size=size, weighted=True, seed=seed)
    plan, mask = Plan.of(index), index.to_mask()
    for head in range(heads):
        for block in range(index.q_blocks):
            start, stop = plan.queries(head, block)
            row = plan.row(head, block)
            seen = np.zeros(50, bool)
            seen[plan.keys(row)] = True
            assert (mask[head, start:stop] == seen).all()
            assert len(plan.bias(row)) == seen.sum()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"heads": 3}, "of 3 heads"),
        ({"q_sizes": np.array([[4, 4, 1]], np.int32)}, "query blocks sum to"),
        ({"k_sizes": np.array([8], np.int32)}, "shape"),
        ({"rows": Rows(np.array([0, 1, 2], np.int32), np.array([0, 2], np.int32))}, "key blocks are 0 to 1"),
        ({"rows": Rows(np.array([0, 2, 3], np.int32), np.array([1, 1, 0], np.int32))}, "each once"),
        ({"rows": Rows(np.array([0, 0, 1], np.int32), np.array([0], np.int32))}, "query block 0 of head 0 reads no key"),
        ({"rows": Rows(np.array([0, 1], np.int32), np.array([0], np.int32))}, "indptr"),
        ({"log_weight": np.array([np.nan, 0.0], np.float32)}, "log_weight must be finite"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(fields, said):
    index = BlockIndex.of(np.eye(2, dtype=bool)[None], Blocks.uniform(8, 4), Blocks.uniform(8, 4))
    index.validate(2, 8, 8)
    with pytest.raises(InputError, match=said):
        changed(index, **fields).validate(2, 8, 8)


@given(st.integers(0, 10**6))
def test_kept_are_the_first_of_a_stable_sort_whatever_ties(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-2, 3, (2, 3, int(rng.integers(1, 12)))).astype(float)
    scores[rng.random(scores.shape) < 0.1], scores[rng.random(scores.shape) < 0.1] = np.inf, -np.inf
    keep = int(rng.integers(0, scores.shape[2] + 2))
    expected = np.zeros(scores.shape, bool)
    np.put_along_axis(expected, np.argsort(-scores, axis=-1, kind="stable")[..., :keep], True, axis=-1)
    assert np.array_equal(kept(scores, keep), expected)


@pytest.mark.parametrize("how", ["mean", "max", "min"])
def test_pooling_equal_blocks_is_pooling_any(how):
    x = np.random.default_rng(0).standard_normal((2, 12, 3))
    one = getattr(x.reshape(2, 3, 4, 3), how)(axis=2)
    assert pooled(x, Blocks.uniform(12, 4), how) == pytest.approx(one)
    assert pooled(x, Blocks(np.array([[4, 4, 4, 0]], np.int32)), how)[:, :3] == pytest.approx(one)
