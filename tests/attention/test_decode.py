"""One query a head, token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.attention.kernel import sparse_attention
from cloudchamber.attention.kernels import decode
from cloudchamber.attention.model import BlockIndex, Blocks, Rows, changed
from cloudchamber.core.errors import InputError
from tests.attention.cases import exact, random_index, tensors


def _index(keys: int, heads: int, seed: int = 0, share: float = 0.2) -> BlockIndex:
    rng = np.random.default_rng(seed)
    mask = rng.random((heads, 1, keys)) < share
    mask[:, :, rng.integers(keys)] = True
    index = BlockIndex.of(mask, Blocks.uniform(1, 1), Blocks.uniform(keys, 1))
    return changed(index, log_weight=rng.exponential(1, len(index.rows.indices)).astype(np.float32))


@given(st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]), st.sampled_from([1, 7, 64]), st.integers(1, 700), st.integers(0, 99))
@settings(max_examples=25)
def test_agrees_with_masked_attention_in_float64(heads, dim, keys, seed):
    q, k, v = tensors(2, heads[0], 1, dim, key_heads=heads[1], keys=keys, seed=seed)
    for rows in (1, 2 * heads[0]):
        index = _index(keys, rows, seed)
        out, lse, mass = sparse_attention(q, k, v, index, backend="decode", mass=True)
        true, true_lse = exact(q, k, v, index)
        assert max((out - true).abs().max(), (lse - true_lse).abs().max()) <= 5e-6
        assert torch.allclose(mass, sparse_attention(q, k, v, index, backend="gather", mass=True)[2], atol=2e-6)


def test_a_cache_is_read_where_it_lies():
    q, k, v = tensors(1, 4, 1, 16, key_heads=2, keys=60)
    room = torch.full((1, 2, 100, 20), torch.nan)  # whatever lies beside the keys
    kept = room[:, :, 20:80, 2:18]
    kept.copy_(k)
    flat, steps = decode._laid(kept.flatten(0, 1))
    assert steps.tolist() == [2000, 20]
    assert flat.ctypes.data == kept.data_ptr()
    index = _index(60, 4)
    assert torch.equal(sparse_attention(q, kept, v, index, backend="decode")[0], sparse_attention(q, k, v, index, backend="decode")[0])


def test_blocks_of_any_size_and_blocks_without_the_query():
    q, k, v = tensors(1, 2, 1, 8, keys=40)
    index = random_index(1, 40, size=8)
    true, _ = exact(q, k, v, index)
    assert (sparse_attention(q, k, v, index, backend="decode")[0] - true).abs().max() <= 5e-6
    three = BlockIndex(
        Rows(np.array([0, 1, 3, 4], np.int32), np.array([2, 0, 4, 1], np.int32)), np.array([[0, 1, 0]], np.int32), index.k_sizes
    )
    true, _ = exact(q, k, v, three)
    assert (sparse_attention(q, k, v, three, backend="decode")[0] - true).abs().max() <= 5e-6


def test_a_head_that_reads_nothing_is_zero():
    q, k, v = tensors(1, 2, 1, 8, keys=5)
    mask = np.zeros((2, 1, 5), bool)
    mask[1, 0, 3] = True
    index = BlockIndex.of(mask, Blocks.uniform(1, 1), Blocks.uniform(5, 1))
    out, lse, mass = sparse_attention(q, k, v, index, backend="decode", on_empty="zero", mass=True)
    assert (out[0, 0] == 0).all()
    assert torch.isneginf(lse[0, 0])
    assert torch.allclose(out[0, 1, 0], v[0, 1, 3])
    assert mass[0].tolist() == [[0.0] * 5, [0.0, 0.0, 0.0, 1.0, 0.0]]


def test_what_is_read_must_be_finite_and_what_is_not_may_be_anything():
    q, k, v = tensors(1, 1, 1, 8, keys=5)
    k[0, 0, 4] = torch.nan
    mask = np.array([[[True, True, False, False, False]]])
    index = BlockIndex.of(mask, Blocks.uniform(1, 1), Blocks.uniform(5, 1))
    assert torch.isfinite(sparse_attention(q, k, v, index, backend="decode")[0]).all()
    mask = ~mask
    with pytest.raises(InputError, match="logit is not finite"):
        sparse_attention(q, k, v, BlockIndex.of(mask, Blocks.uniform(1, 1), Blocks.uniform(5, 1)), backend="decode")


def test_more_queries_and_gradients_are_refused():
    q, k, v = tensors(1, 1, 2, 8)
    with pytest.raises(InputError, match="one query a head, got 2"):
        sparse_attention(q, k, v, random_index(2, 2, size=1), backend="decode")
    q, k, v = (each.requires_grad_() for each in tensors(1, 1, 1, 8))
    with pytest.raises(InputError, match="no gradients"):
        sparse_attention(q, k, v, random_index(1, 1, size=1), backend="decode")


def test_threads_do_not_change_a_bit():
    q, k, v = tensors(1, 6, 1, 32, key_heads=3, keys=300)
    index, threads = _index(300, 6), torch.get_num_threads()
    found = []
    for n in (1, 2):
        torch.set_num_threads(n)
        try:
            found.append(sparse_attention(q, k, v, index, backend="decode")[0])
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(*found)
