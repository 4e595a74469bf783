"""Layouts and the module that puts the parts together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.attention.kernel import sparse_attention
from cloudchamber.attention.layouts import Carry, Raster, TileLayout, tiled
from cloudchamber.attention.model import BlockIndex, Blocks, Grid, Selection
from cloudchamber.attention.sparse import Schedule, SparseAttention, permuted
from cloudchamber.core.errors import InputError
from tests.attention.cases import ragged, tensors


class Nearest:
    """The key blocks whose mean is most like the query block's."""

    def reset(self, spec, rng):
        self.spec = spec

    def select(self, scene):
        score = scene.pooled("q") @ scene.pooled("k").transpose(0, 2, 1)
        rank = np.argsort(np.argsort(-score, axis=-1), axis=-1)
        return Selection(rank < scene.keep)


class Everything(Nearest):
    """Every block, as an index with weights of 1."""

    def select(self, scene):
        mask = np.ones((1, scene.q_blocks.count, scene.k_blocks.count), bool)
        return BlockIndex.of(mask, scene.q_blocks, scene.k_blocks)


class Shuffled:
    """Another order and other sizes for each head, keys and queries apart."""

    def arrange(self, q, k, grid, carry):
        carry.layout = (carry.layout or 0) + 1
        rng = np.random.default_rng(carry.layout)
        return tuple(
            Blocks(ragged(5, x.shape[2], heads, rng).sizes, np.stack([rng.permutation(x.shape[2]) for _ in range(heads)]))
            for x in (q, k)
            for heads in [x.shape[0] * x.shape[1]]
        )


@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 70), st.tuples(*[st.integers(1, 4)] * 3))
def test_tiles_hold_every_token_once_and_only_neighbours(sides, text, tile):
    grid = Grid(*sides, text=text)
    blocks = tiled(grid, tile)
    assert blocks.tokens == grid.tokens
    assert sorted(blocks.order[0]) == list(range(grid.tokens))
    assert (blocks.sizes > 0).all()
    assert np.array_equal(blocks.order[0][blocks.inverse()[0]], np.arange(grid.tokens))
    starts, at = blocks.starts()[0], grid.positions()
    assert blocks.order[0][:text].tolist() == list(range(text))
    for block in range(-(-text // (tile[0] * tile[1] * tile[2])), blocks.count):
        inside = at[blocks.order[0][starts[block] : starts[block + 1]] - text] // np.array(tile)
        assert (inside == inside[0]).all()


def test_tiles_are_cut_once_for_each_grid():
    layout, x = TileLayout((2, 2, 2)), torch.zeros(1, 1, 40, 4)
    first = layout.arrange(x, x, Grid(2, 4, 5), Carry())
    assert layout.arrange(x, x, Grid(2, 4, 5), Carry())[0] is first[0]


@pytest.mark.parametrize("layout", [Raster(16), TileLayout((2, 2, 3)), Shuffled()], ids=lambda each: type(each).__name__)
def test_all_blocks_are_dense_attention_under_every_layout(layout):
    q, k, v = tensors(2, 4, 65, 8, key_heads=2)
    result = SparseAttention(Everything(), layout=layout)(q, k, v, grid=Grid(4, 4, 4, text=1))
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    assert (result.out - dense).abs().max() < 5e-6
    assert result.density == 1.0
    assert result.flops == 4 * 2 * 4 * 65 * 65 * 8
    assert result.seconds.kernel > 0
    assert result.seconds.total >= result.seconds.kernel + result.seconds.permute


@given(st.integers(0, 10**6), st.sampled_from([1, 8]))
@settings(max_examples=20)
def test_permuting_there_and_back_changes_nothing(seed, heads):
    rng = np.random.default_rng(seed)
    x = torch.randn(2, 4, 9, 3)
    blocks = Blocks(np.full((1, 1), 9, np.int32), np.stack([rng.permutation(9) for _ in range(heads)]))
    moved = permuted(x, blocks.order)
    assert torch.equal(permuted(moved, blocks.inverse()), x)
    assert torch.equal(moved[1, 3], x[1, 3, blocks.order[-1].copy()])


def test_a_selector_reads_its_share_and_gradients_flow_to_what_is_read():
    q, k, v = (each.requires_grad_() for each in tensors(1, 2, 128, 8))
    result = SparseAttention(Nearest(), layout=Raster(16), density=0.25)(q, k, v)
    assert result.density == 0.25
    seen = torch.from_numpy(result.index.to_mask().any(1))
    result.out.square().sum().backward()
    assert ((v.grad[0].abs().sum(-1) > 0) == seen).all()
    true, _ = sparse_attention(q, k, v, result.index, backend="dense")
    assert torch.allclose(result.out, true, atol=5e-6)


def test_queries_and_keys_may_have_different_lengths():
    q, k, v = tensors(1, 2, 40, 8, keys=100)
    result = SparseAttention(Everything(), layout=Raster(16))(q, k, v)
    assert (result.out - torch.nn.functional.scaled_dot_product_attention(q, k, v)).abs().max() < 5e-6


def test_the_schedule_runs_the_first_share_dense():
    q, k, v = tensors(1, 2, 64, 8)
    attention = SparseAttention(Nearest(), layout=Raster(16), density=0.25, schedule=Schedule(dense_layers=0.1, dense_steps=0.25))
    assert attention(q, k, v).density == 0.25
    assert attention.at(step=0.24)(q, k, v).density == 1.0
    assert attention.at(step=0.25)(q, k, v).density == 0.25
    first = attention.at(layer=0.0)(q, k, v)
    assert first.density == 1.0
    assert (first.out - torch.nn.functional.scaled_dot_product_attention(q, k, v)).abs().max() < 5e-6


def test_carry_passes_from_call_to_call():
    q, k, v = tensors(1, 2, 30, 8)
    attention = SparseAttention(Everything(), layout=Shuffled())
    first = attention(q, k, v)
    second = attention(q, k, v, carry=first.carry)
    assert second.carry.layout == 2
    assert torch.allclose(first.out, second.out, atol=5e-6)


def test_a_correction_sees_everything_in_the_order_of_blocks():
    q, k, v = tensors(1, 2, 12, 4)
    x = torch.arange(12.0).reshape(1, 12, 1)
    grid = Grid(3, 2, 2)
    seen = {}

    class Gate(torch.nn.Module):
        def forward(self, fine, q, k, v, index, x=None):
            seen["x"], seen["q"] = x, q
            return fine[0] + x[:, None]

        def flops(self, index, q, v):
            return 7.0

    attention = SparseAttention(Everything(), layout=TileLayout((3, 1, 1)), correction=Gate())
    result = attention(q, k, v, grid=grid, x=x)
    plain = SparseAttention(Everything(), layout=TileLayout((3, 1, 1)))(q, k, v, grid=grid)
    assert torch.allclose(result.out, plain.out + x[:, None], atol=1e-6)
    assert seen["x"].ravel().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert torch.equal(seen["q"], permuted(q, tiled(grid, (3, 1, 1)).order))
    assert result.flops == plain.flops + 7


def test_a_selector_starts_afresh_when_the_work_changes():
    class Counting(Everything):
        resets = 0

        def reset(self, spec, rng):
            self.resets += 1

    attention = SparseAttention(Counting(), layout=Raster(8))
    for dim in (4, 4, 8):
        attention(*tensors(1, 1, 16, dim), grid=Grid(16))
    assert attention.selector.resets == 2


def test_what_does_not_fit_is_refused():
    q, k, v = tensors(1, 1, 12, 4)
    with pytest.raises(InputError, match="needs to know where tokens lie"):
        SparseAttention(Everything(), layout=TileLayout())(q, k, v)
    with pytest.raises(InputError, match="has 8 tokens, q and k have 12 and 12"):
        SparseAttention(Everything(), layout=TileLayout())(q, k, v, grid=Grid(2, 2, 2))
    with pytest.raises(InputError, match="three sides"):
        tiled(Grid(2), (1, 0, 1))
    with pytest.raises(InputError, match="density must be"):
        SparseAttention(Everything(), density=0.0)
    with pytest.raises(InputError, match="orders for"):
        permuted(q, np.zeros((3, 12), int))
