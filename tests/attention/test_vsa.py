"""VSA: tiles, the router's gradient, the coarse branch, the ramp."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from cloudchamber.attention.model import Blocks, Grid, kept
from cloudchamber.attention.vsa.coarse import CoarseBranch, SparsityRamp, TileSelector, vsa
from cloudchamber.attention.vsa.model import Tiles, TileSpec, TileView
from cloudchamber.attention.vsa.policies.coarse_top_k import CoarseTopK
from cloudchamber.attention.vsa.policies.sliding_tiles import SlidingTiles
from cloudchamber.attention.vsa.policies.spatial_temporal import TileSpatialTemporal
from cloudchamber.attention.vsa.simulator import run
from cloudchamber.attention.vsa.study import VsaStudy
from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.parallel import study

STUDY = VsaStudy()
SMOKE = STUDY.workloads()["smoke"]
GRIDS = [Grid(4, 4, 4), Grid(5, 3, 6), Grid(1, 1, 1), Grid(4, 4, 5), Grid(2, 3, 4, text=3)]


def made(grid, heads=2, dim=4, width=8, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, heads, grid.tokens, dim, dtype=dtype, generator=rng) for _ in range(3))
    return q, k, v, torch.randn(1, grid.tokens, width, dtype=dtype, generator=rng)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_all_tiles_and_a_closed_gate_are_dense_attention(grid):
    q, k, v, x = made(grid)
    module = vsa(8, 2, 4, sparsity=0.0, tile=(2, 2, 2)).double()
    assert torch.allclose(module(q, k, v, grid=grid, x=x).out, scaled_dot_product_attention(q, k, v), atol=1e-10)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("gates", ["c", "cf"])
def test_constant_values_come_out_times_the_gates(grid, gates):
    q, k, _, x = made(grid)
    v = torch.full_like(q, 1.5)
    module = vsa(8, 2, 4, sparsity=0.5, tile=(2, 2, 2), gates=gates).double()
    torch.nn.init.normal_(module.correction.coarse_gate.weight)
    coarse = module.correction.coarse_gate(x).view(1, -1, 2, 4).transpose(1, 2)
    fine = 1.0 if gates == "c" else module.correction.fine_gate(x).view(1, -1, 2, 4).transpose(1, 2)
    assert torch.allclose(module(q, k, v, grid=grid, x=x).out, 1.5 * (fine + coarse), atol=1e-9)


@pytest.mark.parametrize("gates", ["c", "cf"])
def test_gradients_of_the_whole_operator(gates):
    grid = Grid(2, 3, 3)
    q, k, v, x = made(grid, dim=2, width=3)
    module = vsa(3, 2, 2, sparsity=0.5, tile=(2, 2, 2), gates=gates).double()
    for weight in module.parameters():
        torch.nn.init.normal_(weight)
    inputs = tuple(each.requires_grad_() for each in (q, k, v, x))
    assert torch.autograd.gradcheck(lambda q, k, v, x: module(q, k, v, grid=grid, x=x).out, inputs, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("is_open", [True, False])
def test_keys_that_are_not_read_have_a_gradient_iff_the_coarse_gate_is_open(is_open):
    grid = Grid(2, 2, 8)
    q, k, v, x = made(grid)
    k.requires_grad_()
    module = vsa(8, 2, 4, sparsity=0.75, tile=(2, 2, 2)).double()
    if is_open:
        torch.nn.init.ones_(module.correction.coarse_gate.bias)
    result = module(q, k, v, grid=grid, x=x)
    result.out[0, 0].square().sum().backward()
    read = np.zeros(grid.tokens, bool)
    read[_order(grid)[result.index.to_mask()[0].any(axis=0)]] = True
    if read.all():
        pytest.skip("every key is read by some query")
    assert bool((k.grad[0, 0][~torch.from_numpy(read)] != 0).any()) == is_open


def _order(grid):
    from cloudchamber.attention.layouts import tiled

    return tiled(grid, (2, 2, 2)).order[0]


def test_the_mean_of_a_tile_of_one_token_is_the_token():
    branch = CoarseBranch(4, 1, 4).double()
    torch.nn.init.ones_(branch.coarse_gate.bias)
    grid = Grid(1, 1, 3)
    q, k, v, x = made(grid, heads=1, width=4)
    index = vsa(4, 1, 4, sparsity=0.0, tile=(1, 1, 1)).double()(q, k, v, grid=grid, x=x).index
    out = branch((torch.zeros_like(q), None), q, k, v, index, x)
    assert torch.allclose(out, scaled_dot_product_attention(q, k, v))


def test_the_branch_is_saved_and_missed_when_absent():
    module = vsa(8, 2, 4)
    assert {"correction.coarse_gate.weight", "correction.coarse_gate.bias"} == set(module.state_dict())
    with pytest.raises(RuntimeError, match="coarse_gate"):
        vsa(8, 2, 4).load_state_dict({})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: vsa(8, 2, 4, sparsity=1.0), "sparsity"),
        (lambda: CoarseBranch(8, 2, 4, gates="x"), "gates"),
        (lambda: SparsityRamp(1.2), "target"),
        (lambda: vsa(8, 2, 4)(*made(Grid(2, 2, 2), dtype=torch.float32)[:3], grid=Grid(2, 2, 2)), "hidden states"),
        (lambda: vsa(8, 2, 4)(*made(Grid(2, 2, 2), dtype=torch.float32)[:3], grid=Grid(2, 2, 3)), "tokens"),
        (lambda: STUDY.adjusted(SMOKE, sparsity=1.0), "below 1"),
        (lambda: STUDY.adjusted(SMOKE, source="x"), "source must be"),
        (lambda: STUDY.adjusted(SMOKE, colour=1), "no parameter"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(InputError, match=words):
        call()


@settings(max_examples=15)
@given(st.sampled_from([0.3, 0.5, 0.75, 0.8, 0.9]), st.sampled_from([0.01, 0.03, 0.07]), st.integers(1, 100))
def test_the_ramp_rises_and_ends_exactly_at_its_target(target, rate, interval):
    ramp = SparsityRamp(target, rate, interval)
    steps = [ramp.at(step) for step in range(0, (ramp.increments + 2) * interval, interval)]
    assert steps[0] == 0 and steps[-1] == target and all(a <= b for a, b in zip(steps, steps[1:], strict=False))  # noqa: RUF007


@pytest.mark.parametrize("name", ["aligned", "ragged"])
def test_the_truth_of_tiles_is_that_of_their_tokens(name):
    workload = STUDY.adjusted(STUDY.workloads()[name], frames=4, height=5, width=6, head_dim=32)
    instance = workload.instance(0)
    assert instance.mass.sum(axis=2) == pytest.approx(1.0) and instance.blocks.sizes.sum() == 120
    assert (np.sort(instance.blocks.order[0]) == np.arange(120)).all()


SMALL = [STUDY.adjusted(STUDY.workloads()[name], frames=8, height=8, width=8, heads=1) for name in ("aligned", "cross-scene")]


def test_planted_tiles_are_found_and_a_window_does_not_see_across_scenes():
    rows = {(row.workload, row.policy): row.mean for row in study(STUDY, ["CoarseTopK", "SlidingTiles"], SMALL, seeds=1).summary()}
    assert rows[SMALL[0].name, "CoarseTopK"] > 0.7
    assert rows[SMALL[1].name, "SlidingTiles"] < 0.3 < rows[SMALL[1].name, "CoarseTopK"]


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_the_optimum_is_the_largest_recall_at_k(seed, keep):
    mass = np.random.default_rng(seed).dirichlet(np.ones(12), (1, 12))
    other = kept(np.random.default_rng(seed + 1).random((1, 12, 12)), keep)
    assert (mass * kept(mass, keep)).sum() >= (mass * other).sum() - 1e-12


def test_a_module_shows_a_policy_the_same_places_as_the_study():
    grid, seen = Grid(4, 4, 5), []

    class Looking(SlidingTiles):
        def select(self, view):
            seen.append(view.places)
            return super().select(view)

    q, k, v, x = made(grid)
    result = vsa(8, 2, 4, sparsity=0.75, tile=(2, 2, 2), policy=Looking()).double()(q, k, v, grid=grid, x=x)
    assert SMOKE.tiles == (2, 2, 3) and np.array_equal(seen[0], SMOKE.instance(0).views[0].places)
    expected = run(SlidingTiles(), TileSpec(SMOKE.tiles, SMOKE.keep, 2), SMOKE.instance(0), np.random.default_rng(0))
    assert np.array_equal(result.index.rows.mask(12).reshape(2, 12, 12), expected)


def test_text_reads_everything_and_is_read_by_all():
    grid = Grid(4, 4, 4, text=9)
    q, k, v, x = made(grid)
    index = vsa(8, 2, 4, sparsity=0.75, tile=(2, 2, 2)).double()(q, k, v, grid=grid, x=x).index
    mask = index.rows.mask(index.k_blocks).reshape(2, index.q_blocks, -1)
    assert index.k_sizes[0, :2].tolist() == [8, 1] and mask[:, :2].all() and mask[:, :, :2].all() and not mask.all()


def test_equal_scores_go_to_the_lower_tile():
    q = np.zeros((1, 8, 4), np.float32)
    from cloudchamber.attention.model import Scene

    blocks = Blocks.uniform(8, 2)
    assert TileSelector(CoarseTopK()).select(Scene(q, q, blocks, blocks, 2)).mask[0].tolist() == [[True, True, False, False]] * 4


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "Tiles"),
        (Tiles(np.ones((12, 12))), "booleans"),
        (Tiles(np.ones((3, 3), bool)), "shape"),
        (Tiles(np.ones((12, 12), bool)), "allowed"),
    ],
)
def test_wrong_answers_are_refused_in_words(answer, words):
    class Wrong:
        def reset(self, spec, rng):
            pass

        def select(self, view):
            return answer

    spec = TileSpec(SMOKE.tiles, SMOKE.keep, 2)
    with pytest.raises(CandidateError, match=words):
        run(Wrong(), spec, SMOKE.instance(0), np.random.default_rng(0))
    assert run(SlidingTiles(), spec, SMOKE.instance(0), np.random.default_rng(0)).sum(axis=2).max() == SMOKE.keep


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
def test_a_head_gets_the_pattern_of_its_kind(kind):
    places = np.indices((4, 2, 2)).reshape(3, -1).T.astype(np.int64)
    same = places[:, None] == places[None]
    wanted = same[..., 0] if kind == "spatial" else same[..., 1:].all(axis=2)
    policy = TileSpatialTemporal()
    policy.reset(TileSpec((4, 2, 2), 4, 1), np.random.default_rng(0))
    view = TileView(5.0 * wanted, 5.0 * wanted, np.full(16, 8), places)
    assert np.array_equal(policy.select(view).mask, wanted)


def test_equal_tiles_and_ragged_ones_take_the_same_steps():
    """The short cut for tiles of one size gives what the general way gives."""
    from cloudchamber.attention.vsa.coarse import _means

    x = torch.randn(2, 3, 24, 5, dtype=torch.float64)
    parts = [_means(x[:, :, at : at + 8], np.array([3, 5])) for at in (0, 8, 16)]
    assert torch.allclose(_means(x, np.array([3, 5] * 3)), torch.cat(parts, 2))
    assert torch.allclose(_means(x, np.array([8] * 3)), torch.stack([x[:, :, at : at + 8].mean(2) for at in (0, 8, 16)], 2))
