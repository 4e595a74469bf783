"""Sparse VideoGen2 as a module: clusters as a layout, centres from call to call, rules on any layout, the dense fallback."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from cloudchamber.attention.converting import convert
from cloudchamber.attention.generators import GENERATORS, clustered
from cloudchamber.attention.layouts import Carry, Raster, TileLayout
from cloudchamber.attention.model import Blocks, Grid, scale_of
from cloudchamber.attention.sparse import Schedule, SparseAttention
from cloudchamber.attention.svg2.clustering import batch_kmeans
from cloudchamber.attention.svg2.estimates import STRIDE, antidiagonal
from cloudchamber.attention.svg2.layout import KMeansLayout
from cloudchamber.attention.svg2.model import Kept
from cloudchamber.attention.svg2.policies.calibrated import CalibratedTopP
from cloudchamber.attention.svg2.policies.fixed import KeepAll
from cloudchamber.attention.svg2.policies.spatial_temporal import ClusterSpatialTemporal
from cloudchamber.attention.svg2.policies.top_p import CentroidTopP
from cloudchamber.attention.svg2.policies.xattention_like import XAttentionLike
from cloudchamber.attention.svg2.selector import ClusterSelector, svg2
from cloudchamber.core.errors import InputError
from tests.attention.cases import tensors


def groups():
    made = clustered(Grid(4, 8, 8), 2, 32, np.random.default_rng(0), groups=8)
    return tuple(torch.from_numpy(each)[None] for each in (made.q, made.k, made.v))


@pytest.mark.parametrize(
    "attention", [svg2(1.0, min_tokens=0), svg2(policy=KeepAll(), min_tokens=0), svg2(policy=CentroidTopP(1.0), min_tokens=0)]
)
@pytest.mark.parametrize("text", [0, 5])
def test_everything_kept_is_dense_attention(attention, text):
    q, k, v = tensors(2, 4, 64 + text, 8, key_heads=2)
    result = attention(q, k, v, grid=Grid(4, 4, 4, text=text))
    dense = scaled_dot_product_attention(q, k, v, enable_gqa=True)
    assert (result.out - dense).abs().max() < 5e-6 and result.density == pytest.approx(1.0)


@given(st.integers(0, 10**6), st.sampled_from(["l2", "cosine", "dot"]))
@settings(max_examples=10)
def test_every_token_is_in_one_cluster_and_the_density_is_that_of_the_pairs(seed, metric):
    q, k, v = tensors(1, 2, 90, 8, seed=seed)
    result = svg2(0.5, layout=KMeansLayout(6, 9, metric=metric), min_tokens=0)(q, k, v)
    assert result.density == pytest.approx(result.index.to_mask().mean())
    q_blocks, k_blocks = KMeansLayout(6, 9, metric=metric).arrange(q, k, None, Carry())
    for blocks, count in ((q_blocks, 6), (k_blocks, 9)):
        assert blocks.count == count and (np.sort(blocks.order, axis=1) == np.arange(90)).all()


def test_text_reads_everything_and_is_read_by_all():
    grid, (q, k, v) = Grid(4, 4, 8, text=7), tensors(1, 2, 135, 16)
    layout = KMeansLayout(4, 8)
    blocks = layout.arrange(q, k, grid, Carry())
    assert blocks[0].sizes[:, 0].tolist() == [7, 7] and (blocks[1].order[:, :7] == np.arange(7)).all()
    for chosen in (layout, Raster(8), TileLayout((2, 2, 2))):
        mask = svg2(0.1, layout=chosen, policy=CentroidTopP(0.0), min_tokens=0)(q, k, v, grid=grid).index.to_mask()
        assert mask[:, :7].all() and mask[:, :, :7].all() and not mask.all()
    with pytest.raises(InputError, match="has 134 tokens"):
        layout.arrange(q, k, Grid(1, 1, 127, text=7), Carry())


def test_the_next_call_starts_from_the_last_ones_centres():
    q, k, v = groups()
    attention = svg2(min_tokens=0)
    first = attention(q, k, v)
    before = first.carry.layout
    kept = before.q.copy()
    second = attention(q + 0.01, k + 0.01, v, carry=first.carry)
    assert np.array_equal(before.q, kept), "centres of a call must not be changed in place"
    assert second.carry.layout.resets == 0 and second.carry.layout.q is not before.q
    warm = batch_kmeans((k + 0.01)[0].numpy(), before.k.shape[1], init=before.k, iterations=2)
    assert np.array_equal(warm.centres, second.carry.layout.k)


@pytest.mark.parametrize("other", [lambda q: q[:, :1], lambda q: q[..., :16], lambda q: q[:, :, :100], lambda q: q.repeat(2, 1, 1, 1)])
def test_centres_of_another_shape_are_given_up_and_counted(other):
    q, k, v = groups()
    attention = svg2(min_tokens=0, layout=KMeansLayout(5))
    carry = attention(q, k, v).carry
    result = attention(other(q), other(k), other(v), carry=carry)
    assert result.carry.layout.resets == 1
    fresh = attention(other(q), other(k), other(v))
    assert torch.equal(result.out, fresh.out)


def test_branches_and_layers_keep_their_own_centres():
    q, k, v = groups()
    attention, carry = svg2(min_tokens=0), Carry()
    attention.at(layer=0.5)
    attention(q, k, v, carry=carry, branch="with the prompt")
    attention(q.flip(2), k.roll(3, 3), v, carry=carry, branch="without")
    own = carry.of(0.5, "with the prompt").layout
    attention(q, k, v, carry=carry, branch="without")
    assert carry.of(0.5, "with the prompt").layout is own and carry.of(0.5, "without").layout is not own
    assert carry.layout is None and carry.of(0.4, "without").layout is None and carry.of() is carry


def test_a_converted_model_has_a_carry_for_each_branch():
    class Attend(torch.nn.Module):
        def forward(self, q, k, v):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    model = torch.nn.ModuleDict({"attn": Attend()})
    (one,) = convert(model, lambda: svg2(1.0, min_tokens=0), "attn", grid=Grid(4, 8, 8))
    q, k, v = groups()
    for branch in ("with", "without", "with"):
        one.context["branch"] = branch
        assert torch.allclose(model["attn"](q, k, v), scaled_dot_product_attention(q, k, v), atol=5e-6)
    assert set(one.last.carry.places) == {(0.0, "with"), (0.0, "without")}


def test_short_inputs_run_dense():
    q, k, v = groups()
    assert svg2()(q, k, v).density == 1.0 and svg2(0.5, min_tokens=256)(q, k, v).density < 1.0
    assert svg2(min_tokens=257)(q, k, v).carry.layout is None
    with pytest.raises(InputError, match="min_tokens"):
        svg2(min_tokens=-1)


def test_density_of_a_run_counts_its_dense_part():
    assert Schedule().run_density(0.3, 4, 10) == 0.3
    assert Schedule(dense_layers=0.25, dense_steps=0.2).run_density(0.5, 4, 10) == pytest.approx(0.4 + 0.6 * 0.5)
    with pytest.raises(InputError, match="at least one"):
        Schedule().run_density(0.3, 0, 1)


@pytest.mark.parametrize("name", sorted(GENERATORS))
@pytest.mark.parametrize("layout", [KMeansLayout(), Raster(32), TileLayout((2, 4, 4))], ids=repr)
def test_the_calibrated_rule_delivers_on_every_kind_of_attention_and_layout(name, layout):
    grid = Grid(4, 8, 16)
    made = GENERATORS[name](grid, 4, 64, np.random.default_rng(1))
    q, k, v = (torch.from_numpy(each)[None] for each in (made.q, made.k, made.v))
    result = svg2(0.9, layout=layout, min_tokens=0)(q, k, v, grid=grid)
    order = [blocks.order for blocks in layout.arrange(q, k, grid, Carry())]
    moved = [
        x[0] if at is None else torch.stack([x[0][h][at[h % len(at)].copy()] for h in range(4)])
        for x, at in zip((q, k), order, strict=True)
    ]
    p = torch.softmax(moved[0] @ moved[1].transpose(1, 2) * scale_of(64), 2).numpy()
    caught = (p * result.index.to_mask()).sum(axis=2).mean(axis=1)
    assert (caught >= 0.85).mean() >= 0.95


def test_antidiagonals_see_a_key_that_its_clusters_mean_hides():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((16, 32)), rng.standard_normal((64, 32)) * 0.1
    q += 8.0
    k[40], k[41:48] = 4.0, -4.0 / 7
    sizes_q, sizes_k = np.array([16]), np.array([16, 16, 16, 16])
    found = antidiagonal(q, k, sizes_q, sizes_k)
    assert found.sum() == pytest.approx(1.0) and STRIDE == 8
    assert antidiagonal(q, k, sizes_q, np.array([16, 0, 29, 19]))[0, 1] == 0


def test_antidiagonal_sums_are_those_of_the_scores():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, STRIDE, 4))
    both = np.concatenate([k, np.zeros_like(k)])
    score = sum(q[i] @ k[STRIDE - 1 - i] for i in range(STRIDE)) * scale_of(4) / STRIDE
    found = antidiagonal(q, both, np.array([STRIDE]), np.array([STRIDE, STRIDE]))
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(-score)))


@pytest.mark.parametrize("policy", [XAttentionLike(), ClusterSpatialTemporal(), CentroidTopP(), CalibratedTopP()], ids=repr)
def test_rules_never_name_an_empty_cluster(policy):
    q, k, v = tensors(1, 1, 40, 8)
    same = torch.ones_like(k)  # one cluster holds all keys
    result = SparseAttention(ClusterSelector(policy), layout=KMeansLayout(3, 5))(q, same, v)
    assert sorted(result.index.k_sizes[0].tolist()) == [0, 0, 0, 0, 40]
    assert (result.out - scaled_dot_product_attention(q, same, v)).abs().max() < 5e-6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda q: svg2(0.0), "p must be"),
        (lambda q: svg2(1.5), "p must be"),
        (lambda q: KMeansLayout(0), "n_q"),
        (lambda q: KMeansLayout(metric="x"), "metric"),
        (lambda q: KMeansLayout(start="x"), "start"),
        (lambda q: batch_kmeans(q[0].numpy(), 2, metric="x"), "metric"),
        (lambda q: KMeansLayout(50).arrange(q, q, None, Carry()), "at least 50 rows"),
        (lambda q: KMeansLayout(2, 2).arrange(q * torch.nan, q, None, Carry()), "finite"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(InputError, match=words):
        call(torch.ones(1, 2, 40, 4))


@pytest.mark.parametrize(
    ("mask", "words"), [(np.zeros((2, 3), bool), "without a key"), (np.ones((1, 3), bool), "shape"), (np.ones((2, 1), bool), "shape")]
)
def test_wrong_masks_are_refused(mask, words):
    class Wrong:
        def reset(self, spec, rng): ...

        def keep(self, view):
            return Kept(mask)

    q, k, v = tensors(1, 1, 30, 4)
    with pytest.raises(InputError, match=words):
        svg2(policy=Wrong(), layout=KMeansLayout(2, 3), min_tokens=0)(q, k, v)


def test_an_empty_cluster_takes_no_part_in_the_estimate():
    """Keys far from the origin have low logits; the mean of an empty cluster, 0, has a higher one than all of them."""
    rng = np.random.default_rng(0)
    k = rng.standard_normal((4, 16))[rng.integers(0, 4, 512)]
    q = rng.standard_normal((512, 16))
    q[:, 0], k[:, 0] = 100.0, k[:, 0] - 100.0
    q, k = (torch.from_numpy(each).float()[None, None] for each in (q, k))
    result = svg2(0.5, policy=CentroidTopP(0.0), min_tokens=0)(q, k, torch.randn(k.shape, generator=torch.Generator().manual_seed(0)))
    assert (result.index.k_sizes == 0).any() and result.density < 0.8


@pytest.mark.parametrize("start", ["k-means++", "random"])
def test_clusters_of_a_clip_do_not_depend_on_its_batch(start):
    q, k, _ = tensors(2, 4, 300, 8, key_heads=2)
    layout = KMeansLayout(6, 9, start=start)
    carries = Carry(), Carry()
    for _ in range(2):  # the second starts from the centres of the first
        together = layout.arrange(q, k, None, carries[0])
        alone = layout.arrange(q[1:], k[1:], None, carries[1])
        for one, both in zip(alone, together, strict=True):
            half = len(both.sizes) // 2
            assert np.array_equal(one.order, both.order[half:]) and np.array_equal(one.sizes, both.sizes[half:])


def test_an_answer_about_a_clip_does_not_depend_on_its_batch():
    q, k, v = tensors(2, 2, 256, 8)
    together, alone = (
        SparseAttention(ClusterSelector(CalibratedTopP(), 0.6, samples=4), layout=Raster(16))(*each)
        for each in ((q, k, v), (q[1:], k[1:], v[1:]))
    )
    assert np.array_equal(together.index.to_mask()[2:], alone.index.to_mask())


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_directions_are_clustered_whatever_their_length(metric):
    rng = np.random.default_rng(0)
    label = rng.integers(3, size=60)
    x = np.eye(3)[label] * rng.uniform(0.5, 5.0, (60, 1)) + 0.01 * rng.standard_normal((60, 3))
    made = batch_kmeans(x[None], 3, metric=metric)
    assert len({(a, b) for a, b in zip(label, made.labels[0], strict=True)}) == 3
    assert np.linalg.norm(made.centres[0], axis=1) == pytest.approx(1.0)
    own = np.einsum("nd,nd->n", x, made.centres[0][made.labels[0]])
    length = np.linalg.norm(x, axis=1)
    assert made.inertia == pytest.approx((1 - own / length if metric == "cosine" else length - own).sum(), abs=1e-9)


def test_spatial_and_temporal_heads_get_their_own_pattern():
    grid = Grid(8, 4, 8)
    place = torch.from_numpy(grid.positions()).float()
    frame, spot = (
        torch.nn.functional.one_hot(place[:, 0].long(), 8),
        torch.nn.functional.one_hot((place[:, 1] * 8 + place[:, 2]).long(), 32),
    )
    x = torch.cat([frame, torch.zeros(256, 24)], 1), spot.float()
    q = torch.stack([each * 12.0 for each in x])[None].float()
    result = SparseAttention(ClusterSelector(ClusterSpatialTemporal()), layout=Raster(8))(q, q, q, grid=grid)
    mask = result.index.to_mask()
    assert mask[0].mean() < 0.3 and mask[1].mean() < 0.6
    assert mask[0, :32, :32].all() and mask[1, 0, ::32].all()


def test_blocks_of_one_head_are_its_own_under_grouped_queries():
    q, k, v = tensors(1, 4, 50, 8, key_heads=2)
    result = svg2(0.6, layout=KMeansLayout(3, 5), min_tokens=0)(q, k, v)
    assert result.index.k_sizes.shape == (4, 5) and isinstance(result.index.k_sizes, np.ndarray)
    assert np.array_equal(result.index.k_sizes[0], result.index.k_sizes[1]) and Blocks(result.index.k_sizes).tokens == 50
