"""Radial Attention: counts, masks, fields, bounds, fits."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.attention.generators import decay
from cloudchamber.attention.layouts import Raster, TileLayout, tiled
from cloudchamber.attention.model import Blocks, Grid, Scene, block_mass
from cloudchamber.attention.radial.fields import decay_field, scene_cut_field
from cloudchamber.attention.radial.fitting import fit_decay, suggest
from cloudchamber.attention.radial.masks import RadialSelector, block_mask, token_mask
from cloudchamber.attention.radial.model import RadialSpec, bands, count
from cloudchamber.attention.radial.optimum import least_error
from cloudchamber.attention.radial.planar import Grid2DRadial, allowed_share
from cloudchamber.attention.radial.policies.laws import Harmonic, PowerLaw, SlidingTile, SpatialOnly, StridedLong
from cloudchamber.attention.radial.policies.paper import RadialBlock, RadialPaper
from cloudchamber.attention.radial.simulator import l1_error, run
from cloudchamber.attention.radial.study import RadialStudy
from cloudchamber.attention.radial.workloads import paper_density
from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.parallel import study

SHAPES = [(f, s) for f in (1, 2, 3, 4, 7, 8, 16) for s in (1, 2, 3, 5, 8, 16)]


def ready(policy, f, s, density=1.0):
    policy.reset(RadialSpec(f, s, density), np.random.default_rng(0))
    return policy


@pytest.mark.parametrize(("f", "s"), SHAPES)
@pytest.mark.parametrize("sink", [True, False])
def test_count_is_that_of_the_mask(f, s, sink):
    for policy in (RadialPaper(), RadialBlock(0.7), Harmonic(0.9), StridedLong(gamma=2.0)):
        policy.reset(RadialSpec(f, s, sink=sink), np.random.default_rng(0))
        assert count(bands(policy, f, s), f, s, sink=sink) == token_mask(policy, f, s, sink=sink).sum()


@pytest.mark.parametrize(("f", "s"), [(f, s) for f, s in SHAPES if f >= 4] + [(128, 64)])
def test_the_papers_mask_is_small(f, s):
    policy = ready(RadialPaper(), f, s)
    assert count(bands(policy, f, s), f, s) <= 4 * s * s * f * math.log2(f) + s * s * f  # and the sink


def test_cost_grows_hardly_faster_than_frames():
    fs = [32, 64, 128, 256, 512]
    pairs = [count(bands(ready(RadialPaper(), f, 64), f, 64), f, 64, sink=False) for f in fs]
    assert np.polyfit(np.log(fs), np.log(pairs), 1)[0] < 1.35


def test_the_papers_formula_pair_by_pair():
    f, s = 9, 6
    mask = token_mask(ready(RadialPaper(), f, s), f, s, sink=False).reshape(f, s, f, s)
    for i in range(f):
        for j in range(f):
            d = abs(i - j)
            g = 2 ** int(math.log2(max(d, 1)))
            for k in range(s):
                for l in range(s):  # noqa: E741
                    near = g <= s and abs(k - l) + 1 <= s / g
                    thin = d % math.ceil(g / s) == 0 and k == l
                    assert mask[i, k, j, l] == (near or thin)


def literal_block_mask(f, s, block, gamma, sink):
    """The published rule, pixel by pixel; of a shorter last row of blocks the queries that exist."""
    n = f * s
    total = -(-n // block)
    found = np.zeros((total, total), bool)
    for i in range(f):
        for j in range(f):
            d = abs(i - j)
            local = np.zeros((s, s), bool)
            r = 2 ** s.bit_length() / 2 ** d.bit_length()
            width = s if d <= 1 else max(block, gamma * r)
            for k in range(s):
                for l in range(s):  # noqa: E741
                    local[k, l] = (j == 0 and sink) or (abs(k - l) <= width and not (d > 1 and r < block and d % int(block / r)))
            if not local.any():
                continue
            a, b = (i * s) % block, (j * s) % block
            canvas = np.zeros((-(-(a + s) // block) * block, -(-(b + s) // block) * block))
            canvas[a : a + s, b : b + s] = local
            for x in range(0, len(canvas), block):
                for y in range(0, canvas.shape[1], block):
                    columns = canvas[x : min(x + block, n - i * s + a), y : y + block].mean(axis=0)
                    some = (columns > 0).sum()
                    if some and (columns > 1 / 3).sum() > 0.6 * some:
                        found[(i * s) // block + x // block, (j * s) // block + y // block] = True
    np.fill_diagonal(found, True)
    return found


@pytest.mark.parametrize(("f", "s", "block"), [(6, 16, 8), (5, 15, 8), (9, 12, 16), (3, 7, 4), (1, 5, 4), (17, 8, 8)])
@pytest.mark.parametrize("gamma", [0.2, 0.95, 1.0])
@pytest.mark.parametrize("sink", [True, False])
def test_block_mask_is_the_published_rule(f, s, block, gamma, sink):
    assert np.array_equal(block_mask(f, s, block, gamma, sink=sink), literal_block_mask(f, s, block, gamma, sink))


@pytest.mark.parametrize(("f", "s", "block"), [(4, 100, 64), (4, 101, 64), (3, 91, 64), (7, 75, 64), (5, 33, 32), (9, 11, 4)])
@pytest.mark.parametrize("text", [0, 13])
def test_every_row_of_blocks_keeps_the_sink_and_its_neighbours_whatever_the_length(f, s, block, text):
    mask, n = block_mask(f, s, block, 0.2, text=text), f * s + text
    for row in range(len(mask)):
        held = (np.arange(max(row * block, text), min((row + 1) * block, n)) - text) // s  # frames of the block's queries
        if not len(held):
            continue
        most = np.bincount(held).argmax()
        for first, last in ((0, 0), (max(most - 1, 0), min(most + 1, f - 1))):
            assert mask[row, (text + first * s) // block : -(-(text + (last + 1) * s) // block)].all()


def test_published_densities():
    for f, s, gamma, sink, expected in ((16, 256, 1.0, True, 0.695), (16, 256, 0.2, True, 0.645), (16, 256, 0.95, False, 0.667)):
        assert block_mask(f, s, 64, gamma, sink=sink).mean() == pytest.approx(expected, abs=0.002)
    assert block_mask(32, 256, 64, 1.0).mean() == pytest.approx(0.494, abs=0.002)


def test_block_mask_is_symmetric_but_for_the_sink_and_grows_with_gamma():
    for sink in (True, False):
        masks = [block_mask(12, 20, 8, gamma, sink=sink) for gamma in (0.2, 0.5, 1.0, 2.0)]
        assert all((small <= large).all() for small, large in itertools.pairwise(masks))
    assert np.array_equal(masks[2], masks[2].T) and masks[2].diagonal().all()


def test_text_and_a_ragged_last_block_are_read():
    mask = block_mask(3, 7, 4, 1.0, text=6)
    assert mask.shape == (7, 7) and mask[:2].all() and mask[:, :2].all() and mask[6, 6]
    tokens = token_mask(ready(RadialPaper(), 3, 7), 3, 7)
    index = RadialSelector("paper", block=4).mask(3, 7, text=6)
    assert np.repeat(np.repeat(index, 4, axis=0), 4, axis=1)[6:27, 6:27][tokens].all()


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 9), st.booleans(), st.integers(0, 11))
def test_blocks_of_the_paper_are_those_that_hold_a_pair_of_its_token_mask(f, s, block, sink, text):
    n = f * s + text
    tokens = np.ones((n, n), bool)
    tokens[text:, text:] = token_mask(ready(RadialPaper(), f, s), f, s, sink=sink)
    edges = np.arange(0, n, block)
    expected = np.logical_or.reduceat(np.logical_or.reduceat(tokens, edges, axis=0), edges, axis=1)
    selector = RadialSelector("paper", block=block, sink="first_frame" if sink else "none")
    assert np.array_equal(selector.mask(f, s, text), expected)


def test_blocks_of_the_paper_are_found_without_a_mask_of_all_tokens():
    tracemalloc.start()
    RadialSelector("paper", block=64).mask(32, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (32 * 64) ** 2 / 8


def test_masks_are_cached_by_shape_and_cannot_be_spoilt():
    selector = RadialSelector(block=8)
    assert selector.mask(4, 16) is selector.mask(4, 16) and selector.mask(4, 16) is not selector.mask(5, 16)
    with pytest.raises(ValueError, match="read-only"):
        selector.mask(4, 16)[0, 0] = False


@pytest.mark.parametrize("form", ["block", "paper"])
def test_selector_gives_an_index_of_the_grid(form):
    grid = Grid(3, 2, 5)
    blocks = Blocks.uniform(30, 8)
    x = np.zeros((2, 30, 4), np.float32)
    index = RadialSelector(form, block=8).select(Scene(x, x, blocks, blocks, 4, grid))
    index.validate(2, 30, 30)
    if form == "paper":
        tokens = token_mask(ready(RadialPaper(), 3, 10), 3, 10)
        assert (index.to_mask()[0] | ~tokens).all()
    with pytest.raises(InputError, match="grid"):
        RadialSelector(form, block=8).select(Scene(x, x, blocks, blocks, 4))


@given(st.integers(0, 10**6))
def test_field_recall_is_that_of_the_full_map(seed):
    rng = np.random.default_rng(seed)
    f, s = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    alpha, beta, sink = rng.uniform(0.05, 2, 2), rng.uniform(0.05, 2, 2), rng.uniform(0, 0.3, 2)
    cuts = (1, 2)
    for field in (decay_field(f, s, alpha, beta, sink), scene_cut_field(f, s, alpha, beta, sink, cuts)):
        policy = ready(PowerLaw(gamma=float(rng.uniform(0.1, 1.5))), f, s)
        mask = token_mask(policy, f, s)
        for h in range(2):
            near = np.abs(np.subtract.outer(np.arange(s), np.arange(s)))
            p = np.einsum("ij,kl->ikjl", field.frame[h], field.space[h][near]).reshape(f * s, f * s)
            p = (1 - sink[h]) * p / p.sum(axis=1, keepdims=True)
            p[:, :s] += sink[h] / s
            caught = (p * mask).sum(axis=1)
            assert field.recall(bands(policy, f, s))[h] == pytest.approx(caught.mean())
            renormalised = np.abs(p * mask / caught[:, None] - p).sum(axis=1).mean()
            assert l1_error(bands(policy, f, s), field)[h] == pytest.approx(renormalised)


def against_bounds(alpha, beta, f=32, s=64):
    """Measured error, the published bound, and one that sums what each band leaves out."""
    field = decay_field(f, s, np.array([alpha]), np.array([beta]), np.zeros(1))
    near = np.abs(np.subtract.outer(np.arange(s), np.arange(s)))
    c = 1 / (field.frame[0].sum(axis=1).min() * field.space[0][near].sum(axis=1).min())
    ea, eb = math.exp(-alpha), math.exp(-beta)
    first = 8 * math.exp(-beta * (s / 2 + 1)) / ((1 - ea) * (1 - eb))
    published = c * (first + 4 * (1 + eb) / (1 - eb) * math.exp(-alpha * (s + 1)) / (1 - ea))
    widths = bands(ready(RadialPaper(), f, s), f, s)
    summed = 2 * c * sum(2 * ea**d * 2 * eb ** int(w) / (1 - eb) for d, w in enumerate(widths) if d and w < s)
    return l1_error(widths, field)[0], published, summed


@given(st.floats(0.05, 2), st.floats(0.02, 2))
def test_the_error_is_at_most_what_the_bands_leave_out(alpha, beta):
    measured, _, summed = against_bounds(alpha, beta)
    assert measured <= summed + 1e-12


def test_the_published_bound_holds_where_space_decays_slowly_and_only_there():
    """Its first term is that of bands half a frame wide; beyond three frames they are narrower."""
    for alpha in (0.05, 0.2, 0.7, 2.0):
        measured, published, _ = against_bounds(alpha, 0.05)
        assert measured <= published
    measured, published, _ = against_bounds(0.2, 0.3)
    assert measured > 50 * published


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.floats(0.2, 0.9))
def test_no_widths_beat_the_bound(seed, density):
    rng = np.random.default_rng(seed)
    f, s = 4, 5
    field = decay_field(f, s, rng.uniform(0.05, 2, 3), rng.uniform(0.05, 2, 3), rng.uniform(0, 0.3, 3))
    spec = RadialSpec(f, s, max(density, 0.3))
    least = least_error(field, spec)
    for widths in np.ndindex(*(s + 1,) * f):
        if widths[0] and count(np.array(widths), f, s) <= spec.density * (f * s) ** 2:
            assert l1_error(np.array(widths), field).mean() >= least - 1e-9


def test_scaled_rules_spend_their_budget():
    spec = RadialSpec(32, 64, paper_density(32, 64))
    for policy in (PowerLaw(), Harmonic(), SpatialOnly(), SlidingTile()):
        widths = run(policy, spec, np.random.default_rng(0))
        assert count(widths, 32, 64) >= 0.93 * spec.density * (32 * 64) ** 2


@given(st.floats(0.05, 2), st.floats(0.05, 2))
def test_fit_finds_the_rates(alpha, beta):
    f, s = 4, 6
    frame, place = np.divmod(np.arange(f * s), s)
    apart = [np.abs(np.subtract.outer(each, each)) for each in (frame, place)]
    found = fit_decay(0.3 * np.exp(-alpha * apart[0] - beta * apart[1]), f)
    assert (found.alpha, found.beta, found.c) == pytest.approx((alpha, beta, 0.3)) and found.r2 > 0.999


def test_suggested_width_meets_the_error():
    field = decay_field(32, 64, np.array([0.4]), np.array([0.1]), np.zeros(1))
    policy = suggest(0.4, 0.1, 32, 64, 0.05)
    narrower = RadialBlock(policy.gamma / 2)
    assert l1_error(bands(ready(policy, 32, 64), 32, 64), field)[0] <= 0.05
    assert l1_error(bands(ready(narrower, 32, 64), 32, 64), field)[0] > 0.05


@pytest.mark.parametrize(
    ("width", "keep", "words"),
    [(float("nan"), True, "finite"), (-1.0, True, "finite"), ("x", True, "finite"), (1.0, 1, "True or False"), (64.0, True, "budget")],
)
def test_wrong_answers_are_refused_in_words(width, keep, words):
    class Wrong:
        def reset(self, spec, rng):
            pass

        def width(self, d, f, s):
            return width

        def keep(self, d):
            return keep

    with pytest.raises(CandidateError, match=words):
        run(Wrong(), RadialSpec(8, 64, 0.3), np.random.default_rng(0))


def test_bad_shapes_are_refused():
    for call, words in (
        (lambda: RadialSpec(0, 4), "frames"),
        (lambda: RadialSpec(4, 4, 0.0), "density"),
        (lambda: block_mask(4, 4, 2, 0.0), "gamma"),
        (lambda: suggest(1.0, 1.0, 4, 4, 0.0), "error"),
        (lambda: fit_decay(np.ones((5, 5)), 2), "frames"),
        (lambda: RadialStudy().adjusted(RadialStudy().workloads()["smoke"], colour=1), "no parameter"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_the_study_has_no_void_and_radial_beats_the_window():
    rows = {row.policy: row for row in study(RadialStudy(), workloads=["smoke"], seeds=2).summary()}
    assert all(row.void == 0 for row in rows.values()) and rows["RadialPaper"].mean < rows["SlidingTile"].mean


def scene_of(grid, blocks, heads=2):
    x = np.zeros((heads, grid.tokens, 4), np.float32)
    return Scene(x, x, blocks, blocks, 4, grid)


@pytest.mark.parametrize("form", ["block", "paper"])
def test_a_static_mask_is_planned_once_for_each_shape_and_each_parameter(form):
    grid, other = Grid(4, 4, 4), Grid(2, 8, 4)
    blocks = Blocks.uniform(64, 8)
    first = RadialSelector(form, block=8).select(scene_of(grid, blocks))
    assert RadialSelector(form, block=8).select(scene_of(grid, blocks)) is first
    assert RadialSelector(form, block=8).select(scene_of(other, blocks)) is not first
    assert RadialSelector(form, block=8, sink="none").select(scene_of(grid, blocks)) is not first
    for wrong in (Blocks.uniform(64, 16), tiled(grid, (2, 2, 2))):
        with pytest.raises(InputError, match="use layout=Raster"):
            RadialSelector(form, block=8).select(scene_of(grid, wrong))
    with pytest.raises(InputError, match="has 64 tokens"):
        RadialSelector(form, block=8).select(
            Scene(np.zeros((1, 60, 4)), np.zeros((1, 60, 4)), Blocks.uniform(60, 8), Blocks.uniform(60, 8), 4, grid)
        )


@pytest.mark.parametrize("layout", [Raster(16), TileLayout((2, 2, 4))], ids=repr)
def test_radial_masks_run_in_a_module(layout):
    import torch

    from cloudchamber.attention.sparse import SparseAttention

    grid, selector = Grid(6, 4, 4, text=5), RadialSelector(block=16) if isinstance(layout, Raster) else Grid2DRadial()
    q, k, v = torch.randn(3, 1, 2, grid.tokens, 8).unbind()
    result = SparseAttention(selector, layout=layout)(q, k, v, grid=grid)
    assert 0 < result.density < 1 and torch.isfinite(result.out).all()


def literal_share(grid, blocks, gamma, sink):
    """The rule in the plane, token by token."""
    order = np.arange(grid.tokens) if blocks.order is None else blocks.order[0]
    owner = np.empty(grid.tokens, int)
    owner[order] = np.repeat(np.arange(blocks.count), blocks.sizes[0])
    s, found, pairs = grid.height * grid.width, np.zeros((blocks.count,) * 2), np.zeros((blocks.count,) * 2)
    widths = bands(ready(RadialPaper(), grid.frames, s), grid.frames, s)
    places = grid.positions()
    for a, (t, y, x) in enumerate(places):
        for b, (u, z, w) in enumerate(places):
            width = widths[abs(int(t) - int(u))]
            radius = (math.sqrt(max(gamma * (2 * width - 1), 0)) - 1) / 2 if width else -1
            near = width >= s or (width and max(abs(int(y) - int(z)), abs(int(x) - int(w))) <= max(radius, 0))
            at = owner[a + grid.text], owner[b + grid.text]
            found[at] += bool(near) or (sink and u == 0)
            pairs[at] += 1
    return found / np.maximum(pairs, 1)


@pytest.mark.parametrize("grid", [Grid(5, 3, 4), Grid(4, 4, 4, text=3), Grid(9, 2, 2)], ids=str)
@pytest.mark.parametrize("tile", [(2, 2, 2), None])
@pytest.mark.parametrize("sink", [True, False])
def test_shares_in_the_plane_are_those_of_the_tokens(grid, tile, sink):
    blocks = Blocks.uniform(grid.tokens, 8) if tile is None else tiled(grid, tile)
    for gamma in (0.5, 1.0):
        assert allowed_share(grid, blocks, gamma, sink=sink) == pytest.approx(literal_share(grid, blocks, gamma, sink), abs=1e-6)


@settings(max_examples=15)
@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 9), st.sampled_from([(2, 2, 2), (1, 3, 2), None]))
def test_a_mask_in_the_plane_holds_its_diagonal_and_text_and_grows(sides, text, tile):
    grid = Grid(*sides, text=text)
    blocks = Blocks.uniform(grid.tokens, 8) if tile is None else tiled(grid, tile)
    masks = []
    for gamma in (0.3, 1.0, 3.0):
        index = Grid2DRadial(gamma, sink="none").select(scene_of(grid, blocks))
        index.validate(2, grid.tokens, grid.tokens)
        masks.append(index.rows.mask(blocks.count))
        assert masks[-1].diagonal().all() and np.array_equal(masks[-1], masks[-1].T)
        if text:
            assert masks[-1][0].all() and masks[-1][:, 0].all()
    assert all((small <= large).all() for small, large in itertools.pairwise(masks))


def test_squares_on_tiles_catch_more_than_bands_and_read_less():
    grid = Grid(16, 16, 16)
    made = decay(grid, 4, 64, np.random.default_rng(0))
    found = {}
    for selector, blocks in ((RadialSelector(gamma=0.2), Blocks.uniform(4096, 64)), (Grid2DRadial(), tiled(grid, (4, 4, 4)))):
        order = np.arange(4096) if blocks.order is None else blocks.order[0]
        index = selector.select(scene_of(grid, blocks))
        mass = block_mass(made.q[:, order], made.k[:, order], blocks, blocks)
        found[type(selector)] = index.density(), float((mass * index.rows.mask(64)).sum(axis=2).mean())
    assert found[Grid2DRadial][0] < 0.85 * found[RadialSelector][0] and found[Grid2DRadial][1] > found[RadialSelector][1]


def test_a_plane_needs_one_cut_for_all():
    grid = Grid(2, 2, 2)
    own = Blocks(np.array([[4, 4], [2, 6]], np.int32), np.tile(np.arange(8), (2, 1)))
    with pytest.raises(InputError, match="same for all heads"):
        Grid2DRadial().select(scene_of(grid, own))
    with pytest.raises(InputError, match="grid"):
        Grid2DRadial().select(Scene(np.zeros((1, 8, 2)), np.zeros((1, 8, 2)), Blocks.uniform(8, 4), Blocks.uniform(8, 4), 1))
