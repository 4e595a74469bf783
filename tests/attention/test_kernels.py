"""Every kernel against masked attention in float64, and the laws that attention over a set of keys obeys."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.attention.kernel import _kernel, choose, merge, sparse_attention
from cloudchamber.attention.kernels import dense, gather, native
from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.attention.model import BlockIndex, Blocks, changed
from cloudchamber.core.errors import InputError, UnknownName
from tests.attention.cases import exact, random_index, tensors

TRAINED = ["gather", "native"]  # kernels with gradients on every machine
CASES = {
    "uniform": ((1, 2, 128, 32), {}, {"size": 32, "heads": 2}),
    "ragged last block": ((2, 2, 100, 16), {}, {"size": 16}),
    "ragged blocks, some empty": ((1, 2, 90, 24), {"keys": 130}, {"size": None, "heads": 2}),
    "weights": ((1, 2, 70, 40), {"keys": 55}, {"size": None, "heads": 2, "weighted": True}),
    "groups of heads": ((2, 4, 65, 8), {"key_heads": 2}, {"size": 16, "heads": 8}),
    "one key head": ((1, 3, 40, 20), {"key_heads": 1, "keys": 77}, {"size": 5}),
    "odd dimension": ((1, 1, 33, 7), {}, {"size": 8, "weighted": True}),
    "blocks of one": ((1, 2, 9, 16), {"keys": 30}, {"size": 1}),
    "blocks wider than a tile": ((1, 1, 200, 16), {"keys": 300}, {"size": 150}),
}


def _case(name: str, scale: float = 1.0):
    shape, more, index = CASES[name]
    q, k, v = tensors(*shape, scale=scale, **more)
    return q, k, v, random_index(q.shape[2], k.shape[2], **index)


@pytest.fixture(autouse=True)
def _native_is_there(request):
    if "native" in request.node.name and not native.available():
        pytest.skip("no C++ compiler on this machine")


def test_two_keys_by_hand():
    q, k = torch.tensor([[[[1.0]]]]), torch.tensor([[[[0.0], [math.log(3.0)], [9.0]]]])
    v = torch.tensor([[[[0.0], [4.0], [100.0]]]])
    index = BlockIndex.of(np.array([[[True, True, False]]]), Blocks.uniform(1, 1), Blocks.uniform(3, 1))
    for backend in ("dense", "gather", "native", "decode"):
        out, lse, mass = sparse_attention(q, k, v, index, scale=1.0, backend=backend, mass=True)
        assert out.item() == pytest.approx(3.0)
        assert lse.item() == pytest.approx(math.log(4.0))
        assert mass.ravel().tolist() == pytest.approx([0.25, 0.75, 0.0])


@pytest.mark.parametrize("backend", ["dense", *TRAINED])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_masked_attention_in_float64(name, backend):
    q, k, v, index = _case(name)
    out, lse = sparse_attention(q, k, v, index, backend=backend)
    true, true_lse = exact(q, k, v, index)
    assert (out - true).abs().max() <= 5e-6
    assert (lse - true_lse).abs().max() <= 5e-6
    assert out.dtype == lse.dtype == torch.float32


@pytest.mark.parametrize("backend", TRAINED)
@pytest.mark.parametrize("scale", [1.0, 4.0, 16.0])
@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_at_every_scale(name, scale, backend):
    q, k, v, index = _case(name, scale)
    source = torch.Generator().manual_seed(1)
    d_out, d_lse = torch.randn(*q.shape[:3], v.shape[3], generator=source), torch.randn(q.shape[:3], generator=source)
    found = []
    for kind, how in ((torch.float64, "dense"), (torch.float32, backend)):
        leaves = [each.detach().clone().to(kind).requires_grad_() for each in (q, k, v)]
        out, lse = sparse_attention(*leaves, index, backend=how)
        ((out * d_out).sum() + (lse * d_lse).sum()).backward()
        found.append([each.grad.double() for each in leaves])
    for true, ours in zip(*found, strict=True):
        assert (ours - true).norm() <= 1e-4 * true.norm()


def test_gather_passes_gradcheck_with_and_without_the_fused_step(monkeypatch):
    index = random_index(6, 7, size=2, weighted=True)
    leaves = [torch.randn(1, 2, n, 3, dtype=torch.float64, requires_grad=True) for n in (6, 7, 7)]
    assert torch.autograd.gradcheck(lambda q, k, v: sparse_attention(q, k, v, index, backend="gather"), leaves, fast_mode=True)
    monkeypatch.setattr(gather, "_fused", lambda: None)
    assert torch.autograd.gradcheck(lambda q, k, v: sparse_attention(q, k, v, index, backend="gather"), leaves, fast_mode=True)


@pytest.mark.parametrize("name", CASES)
def test_gather_without_the_fused_step_agrees(name, monkeypatch):
    monkeypatch.setattr(gather, "_fused", lambda: None)
    q, k, v, index = _case(name)
    out, lse = sparse_attention(q, k, v, index, backend="gather")
    true, true_lse = exact(q, k, v, index)
    assert max((out - true).abs().max(), (lse - true_lse).abs().max()) <= 5e-6


@pytest.mark.parametrize("backend", TRAINED)
def test_values_may_have_another_dimension(backend):
    q, k, _ = tensors(1, 2, 40, 16)
    v = torch.randn(1, 2, 40, 11, generator=torch.Generator().manual_seed(2))
    index = random_index(40, 40, size=8)
    assert (sparse_attention(q, k, v, index, backend=backend)[0] - exact(q, k, v, index)[0]).abs().max() <= 5e-6


@pytest.mark.parametrize("backend", TRAINED)
@given(st.sampled_from([None, 1, 7, 16, 64]), st.integers(0, 10**6))
@settings(max_examples=15)
def test_all_blocks_are_dense_attention(backend, size, seed):
    q, k, v = tensors(1, 2, 65, 8, keys=90, seed=seed)
    index = random_index(65, 90, size=size, share=1.1, seed=seed)
    assert (
        sparse_attention(q, k, v, index, backend=backend)[0] - torch.nn.functional.scaled_dot_product_attention(q, k, v)
    ).abs().max() < 5e-6


@pytest.mark.parametrize("backend", TRAINED)
@given(st.integers(0, 10**6))
@settings(max_examples=15)
def test_states_of_disjoint_keys_merge(backend, seed):
    q, k, v = tensors(1, 2, 40, 8, keys=60, seed=seed)
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 4, (1, 5, 8))  # 3: in no part
    which[..., 0] = 0
    q_blocks, k_blocks = Blocks.uniform(40, 8), Blocks.uniform(60, 8)
    parts = [
        sparse_attention(q, k, v, BlockIndex.of(which == each, q_blocks, k_blocks), backend=backend, on_empty="zero") for each in range(3)
    ]
    out, lse = merge(parts)
    whole = sparse_attention(q, k, v, BlockIndex.of(which < 3, q_blocks, k_blocks), backend=backend)
    assert torch.allclose(out, whole[0], atol=5e-6)
    assert torch.allclose(lse, whole[1], atol=5e-6)


def test_nothing_merged_with_nothing_is_nothing():
    state = torch.zeros(1, 1, 2, 3, requires_grad=True), torch.full((1, 1, 2), -math.inf)
    out, lse = merge([state, state])
    assert out.tolist() == [[[[0.0] * 3] * 2]]
    assert torch.isneginf(lse).all()
    out.sum().backward()
    assert torch.isfinite(state[0].grad).all()
    with pytest.raises(InputError, match="at least one"):
        merge([])
    with pytest.raises(InputError, match="of one shape"):
        merge([(torch.zeros(1, 2), torch.zeros(2))])


@pytest.mark.parametrize("backend", TRAINED)
@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_order_of_keys_within_a_block_does_not_matter_and_order_of_queries_does(backend, seed):
    q, k, v = tensors(1, 2, 48, 8, seed=seed)
    index = random_index(48, 48, size=16, seed=seed)
    rng = np.random.default_rng(seed)
    moved = torch.from_numpy(np.concatenate([start + rng.permutation(16) for start in (0, 16, 32)]))
    out, lse = sparse_attention(q, k, v, index, backend=backend)
    same, same_lse = sparse_attention(q, k[:, :, moved], v[:, :, moved], index, backend=backend)
    assert torch.allclose(out, same, atol=5e-6)
    assert torch.allclose(lse, same_lse, atol=5e-6)
    rows, _ = sparse_attention(q[:, :, moved], k, v, index, backend=backend)
    assert torch.allclose(rows, out[:, :, moved], atol=5e-6)


@pytest.mark.parametrize("backend", TRAINED)
@given(st.floats(-20, 20), st.integers(0, 10**6))
@settings(max_examples=15)
def test_a_constant_on_every_logit_moves_lse_alone(backend, constant, seed):
    q, k, v = tensors(1, 2, 48, 8, seed=seed)
    index = random_index(48, 48, size=None, weighted=True, seed=seed)
    moved = changed(index, log_weight=index.log_weight + np.float32(constant))
    out, lse = sparse_attention(q, k, v, index, backend=backend)
    same, higher = sparse_attention(q, k, v, moved, backend=backend)
    assert torch.allclose(out, same, atol=2e-5)
    assert torch.allclose(lse + constant, higher, atol=2e-5)


@pytest.mark.parametrize("backend", TRAINED)
@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_outputs_lie_between_the_values_that_are_read(backend, seed):
    q, k, v = tensors(1, 1, 48, 8, scale=3.0, seed=seed)
    index = random_index(48, 48, size=8, weighted=True, seed=seed)
    out, _ = sparse_attention(q, k, v, index, backend=backend)
    seen = torch.from_numpy(index.to_mask())[0]
    for i in range(48):
        read = v[0, 0, seen[i]]
        assert (out[0, 0, i] >= read.amin(0) - 1e-5).all()
        assert (out[0, 0, i] <= read.amax(0) + 1e-5).all()


@pytest.mark.parametrize("backend", TRAINED)
def test_a_weight_of_one_is_no_weight_and_of_two_is_the_key_twice(backend):
    q, k, v = tensors(1, 2, 32, 8)
    index = random_index(32, 32, size=8)
    plain = sparse_attention(q, k, v, index, backend=backend)
    ones = sparse_attention(q, k, v, changed(index, log_weight=np.zeros(len(index.rows.indices), np.float32)), backend=backend)
    assert torch.allclose(plain[0], ones[0], atol=1e-6)
    whole = BlockIndex.of(np.ones((1, 1, 2), bool), Blocks.uniform(32, 32), Blocks.uniform(32, 16))
    twice = changed(whole, log_weight=np.log(np.array([2.0, 1.0], np.float32)))
    repeated = BlockIndex.of(np.ones((1, 1, 3), bool), Blocks.uniform(32, 32), Blocks.uniform(48, 16))
    out, lse = sparse_attention(q, k, v, twice, backend=backend)
    longer = [torch.cat([each[:, :, :16], each], 2) for each in (k, v)]
    true, true_lse = sparse_attention(q, *longer, repeated, backend=backend)
    assert torch.allclose(out, true, atol=2e-6)
    assert torch.allclose(lse, true_lse, atol=2e-6)


@pytest.mark.parametrize("backend", ["dense", *TRAINED])
def test_a_query_that_reads_nothing_is_zero_with_zero_gradients(backend):
    q, k, v = (each.requires_grad_() for each in tensors(1, 1, 24, 8))
    mask = np.ones((1, 3, 3), bool)
    mask[0, 1] = False
    index = BlockIndex.of(mask, Blocks.uniform(24, 8), Blocks.uniform(24, 8))
    with pytest.raises(InputError, match="reads no key"):
        sparse_attention(q, k, v, index, backend=backend)
    out, lse = sparse_attention(q, k, v, index, backend=backend, on_empty="zero")
    assert (out[0, 0, 8:16] == 0).all()
    assert torch.isneginf(lse[0, 0, 8:16]).all()
    out.sum().backward()
    assert (q.grad[0, 0, 8:16] == 0).all()
    assert all(torch.isfinite(each.grad).all() for each in (q, k, v))


@pytest.mark.parametrize("backend", TRAINED)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_float32(backend, kind):
    q, k, v = (each.to(kind) for each in tensors(1, 2, 64, 32, scale=80.0))  # logits beyond the largest float16
    index = random_index(64, 64, size=16)
    out, lse = sparse_attention(q, k, v, index, backend=backend, scale=1.0)
    true = sparse_attention(q.double(), k.double(), v.double(), index, backend="dense", scale=1.0)
    assert out.dtype == kind
    assert lse.dtype == torch.float32
    assert torch.allclose(out.double(), true[0], rtol=1e-2, atol=0.5)
    assert lse.abs().max() > 65504


@pytest.mark.parametrize("backend", TRAINED)
def test_mass_is_what_each_key_receives(backend):
    q, k, v, index = _case("groups of heads")
    _, _, mass = sparse_attention(q, k, v, index, backend=backend, mass=True)
    assert mass.shape == (2, 4, 65)
    assert torch.allclose(mass.sum(-1), torch.full((2, 4), 65.0), atol=1e-3)
    one = torch.eye(65)[:, 30].reshape(1, 1, 65, 1).expand(2, 2, 65, 1)
    assert torch.allclose(sparse_attention(q, k, one, index, backend=backend)[0].sum((2, 3)), mass[..., 30], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda q, k, v: (q[0], k, v), r"must be of shape \(batch, heads"),
        (lambda q, k, v: (q[:, :3], k, v), r"multiple of key heads, got 3 and 2: q \(1, 3, 32, 8\)"),
        (lambda q, k, v: (q, k[..., :4], v), "same dimension"),
        (lambda q, k, v: (q, k[:, :, :16], v), "same heads and tokens"),
        (lambda q, k, v: (q[:, :, :16], k, v), "query blocks sum to"),
        (lambda q, k, v: (q.double(), k, v), "of one type"),
        (lambda q, k, v: (q * math.nan, k, v), r"q holds NaN or infinity, shape \(4, 32, 8\)"),
        (lambda q, k, v: (q, k / 0.0, v), "k holds NaN or infinity"),
    ],
)
def test_bad_tensors_are_refused_with_their_shapes(change, said):
    q, k, v = tensors(1, 4, 32, 8, key_heads=2)
    with pytest.raises(InputError, match=said):
        sparse_attention(*change(q, k, v), random_index(32, 32, size=8))


def test_unknown_words_are_refused():
    q, k, v = tensors(1, 1, 16, 8)
    index = random_index(16, 16, size=8)
    with pytest.raises(UnknownName, match="did you mean native"):
        sparse_attention(q, k, v, index, backend="nativ")
    with pytest.raises(InputError, match="on_empty"):
        sparse_attention(q, k, v, index, on_empty="ignore")


def test_auto_goes_by_precision_and_length():
    assert choose(torch.zeros(1, 1, 64, 8), True) == ("native" if native.available() else "gather")
    assert choose(torch.zeros(1, 1, 4, 8), True) == "gather"
    assert choose(torch.zeros(1, 1, 1, 8), False) == "decode"
    assert choose(torch.zeros(1, 1, 64, 8, dtype=torch.float64), False) == "gather"


def test_native_is_the_same_on_any_number_of_threads():
    q, k, v, index = _case("groups of heads")
    found, threads = [], torch.get_num_threads()
    for n in (1, 3):
        torch.set_num_threads(n)
        try:
            leaves = [each.clone().requires_grad_() for each in (q, k, v)]
            out, _ = sparse_attention(*leaves, index, backend="native")
            out.square().sum().backward()
        finally:
            torch.set_num_threads(threads)
        found.append([out.detach(), *(each.grad for each in leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_only_inputs_output_lse_and_index_are_saved():
    q, k, v = (each.requires_grad_() for each in tensors(1, 1, 32, 8))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(tuple(x.shape)) or x, lambda x: x):
        sparse_attention(q, k, v, random_index(32, 32, size=8), backend="native")
    assert sorted(kept) == sorted([(1, 32, 8)] * 4 + [(1, 32)])


def test_a_failed_build_warns_once_and_gather_takes_over(tmp_path, monkeypatch):
    q, k, v = tensors(1, 1, 64, 8)
    index = random_index(64, 64, size=16)
    broken = tmp_path / "native.cpp"
    broken.write_text("this is not C++")
    monkeypatch.setattr(native, "SOURCE", broken)
    monkeypatch.setattr(native.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    for cache in (native._library, _kernel):
        cache.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="could not be built") as caught:
            out, _ = sparse_attention(q, k, v, index, backend="native")
            sparse_attention(q, k, v, index, backend="auto")
        assert len(caught) == 1
        assert (out - exact(q, k, v, index)[0]).abs().max() <= 5e-6
        assert not list(tmp_path.rglob("*.so"))
    finally:
        for cache in (native._library, _kernel):
            cache.cache_clear()


def test_no_compiler_is_no_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native._library.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler"):
            assert not native.available()
    finally:
        native._library.cache_clear()


@pytest.mark.slow
def test_two_processes_may_build_at_once(tmp_path):
    code = "from cloudchamber.attention.kernels import native; assert native.available(); print(native.build())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {each.communicate(timeout=120)[0] for each in both}
    assert all(each.returncode == 0 for each in both)
    assert len(said) == 1
    assert [each.suffix for each in (tmp_path / "cloudchamber" / "kernels").iterdir()] == [".so"]


@pytest.mark.slow
def test_native_needs_little_memory_beside_its_tensors():
    code = """
import resource, torch
from cloudchamber.attention import sparse_attention
from tests.attention.cases import random_index
q, k, v = (torch.randn(1, 4, 16384, 64) for _ in range(3))
index = random_index(16384, 16384, size=64, share=0.1)
small = [each[:, :, :64].contiguous() for each in (q, k, v)]
sparse_attention(*small, random_index(64, 64, size=64), backend="native")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sparse_attention(q, k, v, index, backend="native")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * q.numel() * 4))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert float(found.stdout) <= 1.2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ragged blocks, some empty", "weights", "odd dimension", "blocks wider than a tile", "grouped"])
def test_triton_agrees_in_its_interpreter(name):
    code = f"""
import torch
from cloudchamber.attention import sparse_attention
from tests.attention.cases import random_index, tensors
from tests.attention.test_kernels import CASES
shape, more, index = CASES[{name!r}] if {name!r} in CASES else ((1, 4, 40, 16), dict(key_heads=2), dict(size=16, heads=4))
for scale in (1.0, 4.0, 16.0):
    q, k, v = tensors(*shape, scale=scale, **more)
    which, found = random_index(q.shape[2], k.shape[2], **index), []
    for kind, backend in ((torch.float64, "dense"), (torch.float32, "triton")):
        leaves = [each.detach().clone().to(kind).requires_grad_() for each in (q, k, v)]
        out, lse = sparse_attention(*leaves, which, backend=backend)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
        ((out * weight).sum() + (lse * weight[..., 0]).sum()).backward()
        found.append([out, lse, *(each.grad for each in leaves)])
    true, ours = found
    assert scale > 1 or max((a - b).abs().max() for a, b in zip(true[:2], ours[:2])) <= 5e-6
    assert all((a - b).norm() <= 1e-4 * a.norm() for a, b in zip(true[2:], ours[2:]))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    if "MissingExtra" in found.stderr:
        pytest.skip("triton is not installed")
    assert found.returncode == 0, found.stderr


def test_triton_without_a_gpu_says_where_to_go():
    pytest.importorskip("triton")
    q, k, v = tensors(1, 1, 16, 8)
    with pytest.raises(InputError, match="needs tensors on a GPU"):
        sparse_attention(q, k, v, random_index(16, 16, size=8), backend="triton")


@pytest.mark.slow
def test_flex_agrees_on_uniform_blocks():
    q, k, v = tensors(1, 4, 300, 16, key_heads=2, keys=500)
    mask = np.random.default_rng(0).random((4, 3, 4)) < 0.5
    mask[..., 0] = True
    mask[2, 1] = False
    index = BlockIndex.of(mask, Blocks.uniform(300, 128), Blocks.uniform(500, 128))
    out, lse = sparse_attention(q, k, v, index, backend="flex", on_empty="zero")
    true, true_lse = exact(q, k, v, index)
    assert (out - true).abs().max() <= 5e-6
    assert torch.equal(torch.isneginf(lse), torch.isneginf(true_lse))
    some = torch.isfinite(true_lse)
    assert (lse - true_lse)[some].abs().max() <= 5e-6


def test_flex_says_what_it_cannot_do():
    q, k, v = tensors(1, 2, 40, 8)
    with pytest.raises(InputError, match="blocks of one size"):
        sparse_attention(q, k, v, random_index(40, 40, size=None, heads=2), backend="flex")
    with pytest.raises(InputError, match="knows no weights"):
        sparse_attention(q, k, v, random_index(40, 40, size=8, weighted=True), backend="flex")


def test_gather_never_holds_all_pairs():
    q, k, v = tensors(1, 1, 2048, 8)
    index = random_index(2048, 2048, size=64, share=0.1)
    tracemalloc.start()
    sparse_attention(q, k, v, index, backend="gather")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2048 * 2048


def test_the_reference_is_exact_on_request():
    q, k, v, index = _case("uniform")
    flat = [each.flatten(0, 1) for each in (q, k, v)]
    out, lse = dense.forward(*flat, Plan.of(index), 0.1, dtype=torch.float64)
    assert out.dtype == lse.dtype == torch.float32
