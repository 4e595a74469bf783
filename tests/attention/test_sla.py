"""SLA: routers and their optimum, the linear branch and its gradient, checkpoints, recipes."""

from __future__ import annotations

import copy
import itertools
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from cloudchamber.attention import convert, layer_loss, parameter_groups, white_box_loss
from cloudchamber.attention.kernel import sparse_attention
from cloudchamber.attention.layouts import Raster, TileLayout
from cloudchamber.attention.model import BlockIndex, Blocks, Grid, Rows, Scene, changed, kept
from cloudchamber.attention.sla.branch import LinearBranch
from cloudchamber.attention.sla.checkpoints import load, merge_delta, warn_if_untrained
from cloudchamber.attention.sla.features import MAPS
from cloudchamber.attention.sla.linear import Cut, NotFinite, Plan, _summed, linear_attention
from cloudchamber.attention.sla.model import Routes, RouteSpec, RouteView, ahead, counts, estimate, labelled, leanest
from cloudchamber.attention.sla.module import ShareRamp, SLASelector, sla
from cloudchamber.attention.sla.policies.hybrid import HybridTopKTopP
from cloudchamber.attention.sla.policies.oracle_route import OracleRoute
from cloudchamber.attention.sla.policies.sparge_like import SpargeLike
from cloudchamber.attention.sla.policies.top_p import TopP
from cloudchamber.attention.sla.policies.top_share import TopShare
from cloudchamber.attention.sla.pooling import views
from cloudchamber.attention.sla.ranks import stable_rank
from cloudchamber.attention.sla.simulator import flops, judge, linear, marginal, missed, run
from cloudchamber.attention.sla.study import SlaStudy
from cloudchamber.attention.sla.sums import Sums
from cloudchamber.attention.sparse import SparseAttention
from cloudchamber.attention.vsa.coarse import vsa
from cloudchamber.core.errors import CandidateError, InputError
from tests.attention.cases import ragged, tensors

STUDY = SlaStudy()
SMOKE = STUDY.workloads()["smoke"]
PHIS, REGIONS = tuple(MAPS), ("marginal", "complement", "all")


def small(tokens=21, heads=2, dim=3, key_heads=None, keys=None):
    return [each.double() for each in tensors(1, heads, tokens, dim, key_heads=key_heads, keys=keys)]


def module(dim=3, block=4, k_h=0.3, k_l=0.2, **options):
    torch.manual_seed(0)
    made = sla(dim, k_h=k_h, k_l=k_l, layout=Raster(block), **options).double()
    for each in made.parameters():
        torch.nn.init.normal_(each, 0.3, 0.5)
    return made


def random_labels(heads, rows, columns, seed):
    labels = np.random.default_rng(seed).integers(-1, 2, (heads, rows, columns)).astype(np.int8)
    labels[:, np.arange(rows), np.arange(rows) % columns] = 1
    return labels


def index_of(labels, q, k):
    return changed(BlockIndex.of(labels == 1, q, k), negligible=Rows.of(labels == -1))


# ---- the module


@pytest.mark.parametrize("combine", ["sum", "ratio"])
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("phi", PHIS)
def test_gradients_of_the_whole_module_weights_included(phi, region, combine):
    attention = module(phi=phi, region=region, combine=combine)
    names, weights = zip(*((name, each.detach().requires_grad_()) for name, each in attention.named_parameters()), strict=True)
    inputs = tuple(each.requires_grad_() for each in small())

    def out(q, k, v, *weights):
        return torch.func.functional_call(attention, dict(zip(names, weights, strict=True)), (q, k, v)).out

    assert torch.autograd.gradcheck(out, (*inputs, *weights), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("region", REGIONS)
def test_gradients_with_shared_key_heads_another_number_of_keys_and_tiles(region):
    shared = tuple(each.requires_grad_() for each in small(19, 4, 3, key_heads=2, keys=26))
    runs = module(region=region)
    assert torch.autograd.gradcheck(lambda q, k, v: runs(q, k, v).out, shared, atol=1e-6, fast_mode=True)
    tiled, grid = module(region=region), Grid(2, 3, 5, text=3)
    tiled.layout = TileLayout((2, 2, 2))
    inputs = tuple(each.requires_grad_() for each in small(grid.tokens))
    assert torch.autograd.gradcheck(lambda q, k, v: tiled(q, k, v, grid=grid).out, inputs, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("phi", PHIS)
def test_with_everything_critical_the_complement_is_empty_and_the_output_dense_plus_the_offset(phi):
    q, k, v = small()
    attention = module(phi=phi, region="complement", k_h=1.0, k_l=0.0)
    offset = attention.correction.projection.bias
    assert torch.allclose(attention(q, k, v).out, scaled_dot_product_attention(q, k, v) + offset, atol=1e-12)


@pytest.mark.parametrize("region", REGIONS)
def test_before_training_the_output_is_that_of_sparse_attention_to_the_bit_and_the_projection_learns(region):
    q, k, v = tensors(1, 2, 200, 16)
    attention = sla(16, k_h=0.3, region=region)
    result = attention(q, k, v)
    assert torch.equal(result.out, sparse_attention(q, k, v, result.index)[0])
    result.out.square().sum().backward()
    assert attention.correction.projection.weight.grad.abs().max() > 0


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("region", ["marginal", "complement"])
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_branch_is_linear_attention_token_by_token(region, group, seed):
    rng = np.random.default_rng(seed)
    heads, key_heads, tokens = 2 * group, 2, 40
    q_blocks = ragged(5, tokens, heads, rng)
    k_blocks = Blocks(np.repeat(ragged(6, tokens, key_heads, rng).sizes, group, axis=0))
    labels = random_labels(heads, 5, 6, seed)
    q, k, v = small(tokens, heads, 4, key_heads)
    branch = LinearBranch(4, region=region).double()
    torch.nn.init.eye_(branch.projection.weight)
    made = branch((torch.zeros_like(q), torch.zeros(1)), q, k, v, index_of(labels, q_blocks, k_blocks))[0]
    for h in range(heads):
        mask = BlockIndex.of(marginal(labels[h : h + 1], region), q_blocks.of_head(h), k_blocks.of_head(h)).to_mask()[0]
        weight = torch.softmax(q[0, h], 1) @ torch.softmax(k[0, h // group], 1).T * torch.from_numpy(mask)
        assert torch.allclose(made[h], weight @ v[0, h // group] / (weight.sum(1, keepdim=True) + 1e-5), atol=1e-9)


def test_the_module_and_the_simulator_have_the_same_linear_attention():
    instance = SMOKE.instance(0)
    labels = random_labels(2, 16, 16, 0)
    q, k, v = (torch.from_numpy(each)[None].double() for each in (instance.tensors.q, instance.tensors.k, instance.tensors.v))
    for region in REGIONS:
        branch = LinearBranch(16, region=region).double()
        torch.nn.init.eye_(branch.projection.weight)
        made = branch((torch.zeros_like(q), torch.zeros(1)), q, k, v, index_of(labels, instance.blocks, instance.blocks))[0].detach()
        reference = linear(instance.tensors.q, instance.tensors.k, instance.tensors.v, marginal(labels, region), instance.blocks)
        assert np.abs(made.numpy() - reference).max() < 1e-10


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 3), st.floats(0.02, 0.98))
def test_sums_taken_from_the_total_equal_those_that_are_added(seed, group, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((2 * group, 7, 11)) < share
    parts = torch.rand(2, 11, 4, 5, generator=torch.Generator().manual_seed(seed))
    added = _summed(parts, Sums.of(mask, np.ones(mask.shape[:2], bool)), group)
    assert (_summed(parts, Sums.of(mask), group) - added).norm() <= 1e-5 * added.norm()
    exact = torch.einsum("hrp,hpab->hrab", torch.from_numpy(mask).double(), parts.double().repeat_interleave(group, 0))
    assert torch.allclose(added.double(), exact, atol=1e-5)


def test_what_subtraction_would_lose_is_added_instead():
    """One key block holds nearly all of the weight; without it float32 has no digit of the rest."""
    q, k, v = (each[0] for each in tensors(1, 1, 64, 4))
    k[:, :8] = k[:, :8].abs() * 1e9
    marginal = np.ones((1, 8, 8), bool)
    marginal[:, :, 0] = False
    plan = Plan(Cut(np.full((1, 8), 8)), Cut(np.full((1, 8), 8)), marginal)
    phi = torch.relu
    made = linear_attention(phi(q) + 1, phi(k) + 1, v, plan)
    exact = linear_attention(phi(q.double()) + 1, phi(k.double()) + 1, v.double(), plan)
    assert (made - exact).abs().max() < 1e-5


def test_what_subtraction_would_lose_of_a_gradient_is_added_instead():
    """A query block whose weight is tiny has a gradient that swamps what it would be taken from: its keys are those of few features."""
    rng = torch.Generator().manual_seed(0)
    q, k = (torch.rand(1, 1024, 16, generator=rng) for _ in range(2))
    v, weights = (torch.randn(1, 1024, 16, generator=rng) for _ in range(2))
    q[:, :64, :8], k[:, :, 8:], k[:, -128:-64, 8:] = 0, 0, 1.0
    q[:, 64:, 8:] *= 0.01
    marginal = np.ones((1, 16, 16), bool)
    marginal[0, 0, 14], marginal[0, 1:, 3] = False, False
    plan, found = Plan(Cut(np.full((1, 16), 64)), Cut(np.full((1, 16), 64)), marginal), []
    for kind in (torch.float32, torch.float64):
        inputs = [each.to(kind).requires_grad_() for each in (q, k, v)]
        found.append(torch.autograd.grad((linear_attention(*inputs, plan) * weights.to(kind)).sum(), inputs))
    for made, exact in zip(*found, strict=True):
        assert (made - exact).norm() <= 1e-4 * exact.norm()


def test_a_gradient_is_not_lost_in_one_feature_because_others_are_large():
    """What is taken away is far larger than the rest in the one feature that the key block has."""
    q, k, v = (each[0].abs() for each in tensors(1, 1, 64, 4))
    q[:, :8, 1:], k[:, :32, 1:], k[:, 32:, 0] = 0, 0, 0
    q[:, 8:, 0] *= 1e-6
    q[:, 8:16, 1:] *= 1e-3  # weights of these are tiny, so that their gradients are as large, in other features
    k[:, 32:] *= 1e-2
    k[:, 8:32] *= 1e-3
    marginal = np.ones((1, 8, 8), bool)
    marginal[0, 0, 0] = False
    plan, found = Plan(Cut(np.full((1, 8), 8)), Cut(np.full((1, 8), 8)), marginal), []
    for kind in (torch.float32, torch.float64):
        inputs = [each.to(kind).requires_grad_() for each in (q, k, v)]
        found.append(torch.autograd.grad(linear_attention(*inputs, plan).square().sum(), inputs)[2][:, :8])
    assert (found[0] - found[1]).norm() <= 1e-4 * found[1].norm()


@pytest.mark.parametrize("combine", ["sum", "ratio"])
@pytest.mark.parametrize("phi", PHIS)
def test_autocast_does_not_reach_the_branch(phi, combine):
    branch = LinearBranch(16, phi=phi, combine=combine)
    for each in branch.parameters():
        torch.nn.init.normal_(each, 0.3, 0.5)
    index = index_of(random_labels(2, 4, 4, 0), *[Blocks.uniform(64, 16)] * 2)
    found = []
    for enabled in (False, True):
        inputs = [each.requires_grad_() for each in tensors(1, 2, 64, 16)]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = branch((torch.zeros(1, 2, 64, 16), torch.zeros(1)), *inputs, index)
        found.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_linear_attention_alone_has_sums_of_single_precision_under_autocast():
    labels, found = random_labels(2, 4, 4, 0), []
    plan = Plan(Cut(np.full((1, 4), 16)), Cut(np.full((1, 4), 16)), labels == 0)
    for enabled in (False, True):
        leaves = [each[0].abs().requires_grad_() for each in tensors(1, 2, 64, 16)]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = linear_attention(*leaves, plan)
            found.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other) and one.dtype == torch.float32


def test_the_branch_costs_next_to_nothing():
    index = index_of(np.stack([labelled(np.eye(256, dtype=bool), np.zeros((256, 256)), 25)]), *[Blocks.uniform(16384, 64)] * 2)
    x = torch.empty(1, 1, 16384, 64)
    for region in REGIONS:
        assert LinearBranch(64, region=region).flops(index, x, x) <= 0.015 * 4 * 16384**2 * 64


@pytest.mark.parametrize("region", REGIONS)
def test_the_simulator_counts_what_the_module_counts(region):
    instance, labels = SMOKE.instance(0), random_labels(2, 16, 16, 3)
    index = index_of(labels, instance.blocks, instance.blocks)
    x = torch.empty(1, *instance.tensors.q.shape)
    told = 4 * index.density() * 2 * 64**2 * 16 + LinearBranch(16, region=region).flops(index, x, x)
    assert flops(labels, instance, region) == pytest.approx(told / (4 * 2 * 64**2 * 16))


def test_only_inputs_output_and_sums_are_kept_for_the_gradient():
    kept_bytes = []
    q, k, v = (each[0].requires_grad_() for each in tensors(1, 2, 1024, 64))
    labels = random_labels(2, 16, 16, 0)
    plan = Plan(Cut(np.full((1, 16), 64)), Cut(np.full((1, 16), 64)), labels == 0)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept_bytes.append(x.numel() * 4) or x, lambda x: x):
        linear_attention(q, k, v, plan)
    assert sum(kept_bytes) <= 2 * 4 * (q.numel() + k.numel() + v.numel())


def test_the_ratio_keeps_dense_attention_where_everything_is_critical_and_mixes_elsewhere():
    q, k, v = small()
    whole = module(combine="ratio", k_h=1.0, k_l=0.0)
    assert torch.allclose(whole(q, k, v).out, scaled_dot_product_attention(q, k, v), atol=1e-12)
    part = sla(3, k_h=0.3, combine="ratio").double()
    part.layout.block = 4
    ones = torch.ones_like(v)
    assert torch.allclose(part(q, k, ones).out, ones, atol=1e-4)  # a mean of means, whatever the share


@pytest.mark.parametrize("region", ["marginal", "complement"])
def test_the_ratio_is_sparse_attention_where_the_branch_is_left_nothing(region):
    q, k, v = small(24)
    labels = random_labels(2, 6, 7, 0)
    labels[labels == 0] = -1 if region == "marginal" else 1
    labels[:, :, 6] = 0  # an empty block
    if region == "complement":
        labels[:, :, :6] = 1
    index = index_of(labels, Blocks.uniform(24, 4), Blocks(np.array([[4] * 6 + [0]], np.int32)))
    fine = sparse_attention(q, k, v, index)
    branch = LinearBranch(3, combine="ratio", region=region).double()
    assert torch.equal(branch(fine, q, k, v, index), fine[0])


def test_negligible_blocks_do_not_count_in_the_ratio():
    q, k, v = small(24)
    labels = random_labels(2, 6, 6, 1)
    labels[:, :, 5] = -1
    labels[:, :, 0], labels[:, :, 1] = 1, 0
    index = index_of(labels, *[Blocks.uniform(24, 4)] * 2)
    branch = LinearBranch(3, combine="ratio").double()
    other = k.clone()
    other[:, :, 20:] = 30 * q[:, :, 20:]
    made = [branch(sparse_attention(q, each, v, index), q, each, v, index) for each in (k, other)]
    assert torch.allclose(*made, atol=1e-12)


@pytest.mark.parametrize("k_h", [0.1, 0.5])
def test_text_is_critical_to_all_and_all_to_it(k_h):
    grid = Grid(4, 4, 4, text=9)
    q, k, v = tensors(1, 2, grid.tokens, 8)
    for layout, rows in ((TileLayout((2, 2, 2)), 2), (Raster(8), 2)):
        index = sla(8, k_h=k_h, k_l=0.4, layout=layout)(q, k, v, grid=grid).index
        read, negligible = (each.mask(index.k_blocks).reshape(2, index.q_blocks, -1) for each in (index.rows, index.negligible))
        assert read[:, :rows].all() and read[:, :, :rows].all() and not read.all()
        assert not (read & negligible).any() and negligible.any()


def test_the_projection_stays_in_single_precision_in_a_model_of_half():
    attention = sla(16, k_h=0.3).to(torch.bfloat16)
    assert attention.correction.projection.weight.dtype == torch.float32
    q, k, v = (each.bfloat16() for each in tensors(1, 2, 130, 16))
    assert attention(q, k, v).out.dtype == torch.bfloat16
    assert sla(16).half().double().correction.projection.weight.dtype == torch.float64


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_overflow_names_layer_and_head():
    q, k, v = tensors(1, 2, 128, 8)
    q, k = q * 0, k.clone()
    k[0, 1] = 3e38
    model = torch.nn.ModuleDict({"attn": torch.nn.MultiheadAttention(16, 2)})
    (converted,) = convert(model, lambda: sla(8, phi="elu", region="all"), "attn")
    with pytest.raises(NotFinite, match=r"head 1 of sequence 0, in the layer at 0% of the depth"):
        converted.attention(q, k, v)


def test_a_module_is_copied_and_pickled():
    attention = sla(8, phi="hedgehog", combine="ratio", k_h=0.3)
    q, k, v = tensors(1, 2, 130, 8)
    for again in (copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        assert torch.equal(again(q, k, v).out, attention(q, k, v).out)


def test_its_density_is_the_critical_share_so_a_ramp_lowers_it():
    attention, ramp = sla(8, k_h=0.1, k_l=0.5), ShareRamp(0.1, rate=0.3, interval=10)
    attention.layout.block = 8
    q, k, v = tensors(1, 1, 160, 8)
    found = []
    for step in (0, 10, 20, 40):
        attention.density = ramp.at(step)
        found.append(attention(q, k, v).density)
    assert found == pytest.approx([1.0, 0.7, 0.4, 0.1])


@settings(max_examples=15)
@given(st.sampled_from([0.05, 0.1, 0.3, 1.0]), st.sampled_from([0.01, 0.03, 0.2]), st.integers(1, 100))
def test_the_ramp_falls_and_ends_exactly_at_its_target(target, rate, interval):
    ramp = ShareRamp(target, rate, interval)
    steps = [ramp.at(step) for step in range(0, 102 * interval, interval)]
    assert steps[0] == 1.0 and steps[-1] == target and all(a >= b for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sla(8, k_h=0.6, k_l=0.5), "at most 1 together"),
        (lambda: SLASelector(0.0), "k_h must be in"),
        (lambda: SLASelector(0.5, -0.1), "k_l in"),
        (lambda: sla(8, region="rest"), "region one of"),
        (lambda: sla(8, phi="cosine"), "no feature map named 'cosine'"),
        (lambda: LinearBranch(0), "head_dim must be"),
        (lambda: LinearBranch(8, combine="max"), "combine 'sum' or 'ratio'"),
        (lambda: sla(8)(*tensors(1, 1, 64, 16)), "this branch has head_dim = 8"),
        (lambda: sla(8, layout=TileLayout())(*tensors(1, 1, 64, 8, keys=32), grid=Grid(4, 4, 4)), "q and k have 64 and 32"),
        (lambda: SparseAttention(SLASelector(strict=True), density=0.05)(*tensors(1, 1, 128, 8)), "less than one"),
        (lambda: ShareRamp(0.0), "target"),
        (lambda: parameter_groups(torch.nn.Linear(2, 2), corrections_only=True), "nothing to train"),
        (lambda: STUDY.adjusted(SMOKE, colour=1), "no parameter"),
        (lambda: STUDY.adjusted(SMOKE, source="x"), "source must be one of"),
        (lambda: STUDY.adjusted(SMOKE, region="x"), "region must be one of"),
        (lambda: STUDY.adjusted(SMOKE, k_h=0.95), "at most 1 together"),
        (lambda: STUDY.adjusted(SMOKE, block=0), "at least 1"),
        (lambda: STUDY.adjusted(SMOKE, k_l="all"), "must be a number"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(InputError, match=words):
        call()


# ---- checkpoints and recipes


class Layer(torch.nn.Module):
    """A model of one attention."""

    def __init__(self, tuned=True):
        super().__init__()
        self.inner = torch.nn.Linear(8, 8)
        self.attn = torch.nn.Module()
        self.attn.attend = scaled_dot_product_attention
        if tuned:
            convert(self, lambda: sla(8, k_h=0.25), "attn")

    def forward(self, x):
        q = self.inner(x)[:, None]
        return self.attn.attend(q, q, q)[:, 0]


def test_a_checkpoint_with_a_linear_branch_does_not_load_into_a_dense_model():
    state = Layer().state_dict()
    with pytest.raises(InputError, match=r"no place for 2 keys of the checkpoint, attn\._sparse_attention\.correction\.projection\.bias"):
        load(Layer(tuned=False), state)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        Layer(tuned=False).load_state_dict(state)


def test_a_dense_checkpoint_loads_only_if_that_is_said():
    dense, model = Layer(tuned=False), Layer()
    with pytest.raises(InputError, match="from_dense=True"):
        load(model, dense.state_dict())
    load(model, dense.state_dict(), from_dense=True)
    assert torch.equal(model.inner.weight, dense.inner.weight)
    with pytest.raises(InputError, match=r"lacks 2 keys of the model, inner\.bias"):
        load(model, {}, from_dense=True)


def test_a_dense_checkpoint_loads_into_any_correction():
    dense, model = Layer(tuned=False), Layer(tuned=False)
    convert(model, lambda: vsa(8, 1, 8), "attn")
    with pytest.raises(InputError, match="from_dense=True"):
        load(model, dense.state_dict())
    load(model, dense.state_dict(), from_dense=True)
    assert torch.equal(model.inner.weight, dense.inner.weight)


def test_weights_come_back_from_a_file(tmp_path):
    first, second = Layer(), Layer()
    torch.nn.init.normal_(first.attn._sparse_attention.correction.projection.weight)
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    load(second, torch.load(tmp_path / "weights.pt"))
    x = torch.randn(2, 130, 8)
    assert torch.equal(first(x), second(x))


def test_a_merge_brings_what_only_the_target_has():
    base, before, after = Layer(tuned=False), Layer(tuned=False), Layer()
    torch.nn.init.ones_(after.attn._sparse_attention.correction.projection.weight)
    merged = merge_delta(base.state_dict(), before.state_dict(), after.state_dict(), w=0.5)
    expected = base.inner.weight + 0.5 * (after.inner.weight - before.inner.weight)
    assert torch.allclose(merged["inner.weight"], expected)
    model = Layer()
    load(model, merged)
    assert model.attn._sparse_attention.correction.projection.weight.eq(1).all()


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (({}, {"a": 0}, {"a": 0}), "base lacks 1 keys of diff_base, a"),
        (({"a": 0}, {"a": 0}, {}), "diff_target lacks"),
        (({"a": 0}, {}, {"a": 0}), "not known"),
        (({"a": 0}, {"a": 0}, {"a": 1}), "shapes"),
    ],
)
def test_states_that_do_not_belong_together_are_not_merged(states, words):
    with pytest.raises(InputError, match=words):
        merge_delta(*({key: torch.zeros(2 + size) for key, size in each.items()} for each in states))


def test_whole_numbers_are_taken_over_where_they_changed():
    merged = merge_delta(*({"steps": torch.tensor(n), "seen": torch.tensor(m)} for n, m in ((1, 5), (2, 2), (3, 2))))
    assert (merged["steps"].item(), merged["seen"].item()) == (3, 5)


def test_an_untrained_branch_is_told_once_it_is_asked():
    model = Layer()
    with pytest.warns(UserWarning, match="the output is that of sparse attention alone"):
        assert warn_if_untrained(model) == ["attn._sparse_attention.correction"]
    torch.nn.init.ones_(model.attn._sparse_attention.correction.projection.bias)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_if_untrained(model) == [] == warn_if_untrained(sla(8, combine="ratio"))


@pytest.mark.parametrize("branch_only", [False, True])
def test_a_few_steps_of_the_recipe_bring_the_model_nearer_to_its_teacher(branch_only):
    torch.manual_seed(0)
    teacher, model = Layer(tuned=False), Layer()
    load(model, teacher.state_dict(), from_dense=True)
    groups = parameter_groups(model, lr=2e-3, corrections_only=branch_only)
    assert [group["lr"] for group in groups] == ([2e-2] if branch_only else [2e-3, 2e-2])
    x, losses = torch.randn(2, 260, 8), []
    for _ in range(20):
        model.zero_grad()
        loss = white_box_loss(model, teacher, x)
        loss.backward()
        with torch.no_grad():
            for group in groups:
                for each in group["params"]:
                    each.sub_(100 * group["lr"] * each.grad)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    assert torch.equal(model.inner.weight, teacher.inner.weight) == branch_only


def test_the_loss_of_a_layer_is_its_distance_from_dense_attention():
    q, k, v = tensors(1, 4, 130, 8, key_heads=2)
    assert layer_loss(sla(8, k_h=1.0, k_l=0.0), q, k, v) < 1e-10 < layer_loss(sla(8), q, k, v)


# ---- routers


def view_of(scores, k_sizes=None):
    rows, columns = scores.shape
    sizes = np.full(columns, 4) if k_sizes is None else np.array(k_sizes)
    return RouteView(scores, np.ones(rows), np.ones(columns), np.full(rows, 4), sizes)


def routed(policy, view, critical, negligible=0):
    policy.reset(RouteSpec(critical, negligible, 1), np.random.default_rng(0))
    return policy.route(view).labels


def test_counts_are_whole_blocks_and_one_is_always_critical():
    assert counts(0.29, 0.1, 100) == (29, 10) and counts(0.05, 0.1, 10) == (1, 1) and counts(0.5, 0.5, 1) == (1, 0)


def test_the_top_is_critical_and_the_bottom_negligible():
    assert routed(TopShare(), view_of(np.array([[1.0, 4.0, 4.0, 0.0, 2.0]])), 2, 1).tolist() == [[0, 1, 1, -1, 0]]


def test_flat_rows_get_more_blocks_than_peaked_ones_but_not_all_of_them():
    scores = np.array([[9.0, 0, 0, 0, 0, 0], [0.3, 0.2, 0.1, 0, 0, 0]])
    assert (routed(TopP(), view_of(scores), 3) == 1).sum(axis=1).tolist() == [1, 5]
    assert (routed(HybridTopKTopP(), view_of(scores), 3) == 1).sum(axis=1).tolist() == [1, 4]
    assert (routed(TopP(0.0), view_of(scores), 3) == 1).sum(axis=1).tolist() == [1, 1]


def test_blocks_of_dissimilar_tokens_are_read_first_and_never_given_up():
    import msgspec

    view = msgspec.structs.replace(view_of(np.array([[3.0, 2.0, 1.0, 0.0]] * 2)), k_similarity=np.array([0.9, 0.9, 0.9, 0.0]))
    assert routed(SpargeLike(), view, 2, 2).tolist() == [[1, -1, -1, 1]] * 2
    loose = msgspec.structs.replace(view, q_similarity=np.array([0.0, 1.0]))
    assert routed(SpargeLike(), loose, 2, 3)[0].min() == 0
    assert routed(SpargeLike(-1.0), view, 2, 1).tolist() == routed(TopShare(), view, 2, 1).tolist()


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 3))
def test_every_router_keeps_its_budget_and_leaves_no_row_empty(seed, critical, negligible):
    rng = np.random.default_rng(seed)
    view = RouteView(rng.normal(0, 2, (5, 8)), rng.random(5), rng.random(8), rng.integers(1, 9, 5), rng.integers(1, 9, 8))
    for policy in (TopShare(), TopP(), TopP(0.3), HybridTopKTopP(), HybridTopKTopP(1.0, most=1.0), SpargeLike(0.5)):
        labels = routed(policy, view, critical, negligible)
        assert labels.dtype == np.int8 and set(np.unique(labels)) <= {-1, 0, 1}
        assert (labels == 1).any(axis=1).all() and (labels == 1).sum() <= 5 * critical


@given(st.integers(0, 10**6))
def test_what_is_ahead_is_what_better_blocks_hold(seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(6), 3)
    slow = [[sum(x for x in row if x > each) for each in row] for row in p]
    assert np.allclose(ahead(p), slow)


@pytest.mark.parametrize("grid", [Grid(2, 4, 8), Grid(3, 3, 5)], ids=str)
def test_views_are_means_and_cosines_of_pairs_and_ignore_an_offset_of_all_keys(grid):
    q, k, _ = (each[0].numpy().astype(np.float64) for each in tensors(1, 2, grid.tokens, 6))
    blocks = Blocks.uniform(grid.tokens, 8)
    (first, second), offset = views(q, k, blocks, blocks), views(q, k + 30.0, blocks, blocks)
    assert np.allclose(second.scores, offset[1].scores) and np.allclose(second.k_similarity, offset[1].k_similarity)
    part = k[0, 8:16] - k[0].mean(axis=0)
    unit = part / np.linalg.norm(part, axis=1, keepdims=True)
    cosines = [float(unit[i] @ unit[j]) for i in range(8) for j in range(8) if i != j]
    assert first.k_similarity[1] == pytest.approx(np.mean(cosines))
    assert first.scores[0, 1] == pytest.approx(q[0, :8].mean(axis=0) @ part.mean(axis=0) / np.sqrt(6))
    assert estimate(first).sum(axis=1) == pytest.approx(1.0)


def test_a_last_block_of_one_token_and_blocks_of_other_sizes_are_seen_as_they_are():
    x = np.random.default_rng(0).standard_normal((2, 9, 3))
    even, own = Blocks.uniform(9, 4), Blocks(np.array([[4, 4, 1], [4, 4, 1]], np.int32))
    for a, b in zip(views(x, x, even, even), views(x, x, own, own), strict=True):
        assert np.allclose(a.scores, b.scores) and np.allclose(a.q_similarity, b.q_similarity) and a.q_similarity[2] == 1.0
    empty = views(x, x, even, Blocks(np.array([[5, 0, 4]], np.int32)))[0]
    assert np.isfinite(empty.scores).all() and empty.k_sizes.tolist() == [5, 0, 4]


def test_a_module_shows_a_policy_what_the_study_shows():
    instance, seen = SMOKE.instance(0), []

    class Looking(TopShare):
        def route(self, view):
            seen.append(view)
            return super().route(view)

    scene = Scene(instance.tensors.q, instance.tensors.k, instance.blocks, instance.blocks, 1)
    selector = SLASelector(SMOKE.k_h, SMOKE.k_l, policy=Looking())
    index = selector.select(scene)
    assert np.array_equal(seen[1].scores, instance.views[1].scores)
    labels = run(TopShare(), RouteSpec(*SMOKE.counts(16), 2), instance, np.random.default_rng(0))
    assert np.array_equal(index.rows.mask(16).reshape(2, 16, 16), labels == 1)
    assert np.array_equal(index.negligible.mask(16).reshape(2, 16, 16), labels == -1)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 2))
def test_no_mask_misses_less_than_the_optimum(seed, keep):
    rng = np.random.default_rng(seed)
    mass = rng.dirichlet(np.ones(3) * rng.choice([0.2, 1.0, 5.0]), 3) * np.sqrt(rng.integers(1, 5, 3))[:, None]

    def cost(mask):
        return float((((mass * ~mask).sum(axis=1)) ** 2).sum())

    masks = (np.array(bits).reshape(3, 3) for bits in itertools.product([False, True], repeat=9))
    allowed = [cost(mask) for mask in masks if mask.any(axis=1).all() and mask.sum() <= 3 * keep]
    assert cost(leanest(mass, keep)) == pytest.approx(min(allowed), abs=1e-12)


@pytest.mark.parametrize("name", ["smoke", "ragged"])
def test_the_oracle_attains_the_bound(name):
    workload = STUDY.workloads()[name] if name == "smoke" else STUDY.adjusted(STUDY.workloads()[name], frames=3, heads=1)
    outcome = STUDY.trial(OracleRoute(), workload, 0)
    assert outcome.metrics["missed"] == pytest.approx(STUDY.bound(workload, 0).value, abs=1e-12)


# ---- the simulator


def test_what_is_missed_is_a_mean_of_squares():
    instance = SMOKE.instance(0)
    critical = np.stack([kept(mass, 2) for mass in instance.mass])
    left = 1 - (instance.mass * critical).sum(axis=2)
    assert missed(critical, instance) == pytest.approx(np.sqrt((left**2).mean(axis=1)))


@pytest.mark.parametrize("region", REGIONS)
def test_the_best_projection_never_makes_it_worse(region):
    instance = SMOKE.instance(1)
    judged = judge(random_labels(2, 16, 16, 5), instance, region)
    assert judged.error <= judged.sparse_error
    whole = judge(np.ones((2, 16, 16), np.int8), instance, region)
    assert max(whole.error, whole.sparse_error, whole.ratio_error) < 1e-10


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 12))
def test_the_stable_rank_is_that_of_singular_values(seed, rows, columns):
    matrix = np.random.default_rng(seed).gamma(0.3, size=(rows, columns))
    values = np.linalg.svd(matrix, compute_uv=False)
    assert stable_rank(matrix) == pytest.approx((values**2).sum() / values[0] ** 2, rel=2e-3)
    assert stable_rank(np.zeros((rows, columns))) == 0.0


@pytest.mark.parametrize("name", ["decay-tiles", "ragged"])
def test_the_truth_of_blocks_is_that_of_their_tokens(name):
    workload = STUDY.adjusted(STUDY.workloads()[name], frames=4, height=5, width=6, head_dim=32, heads=1)
    instance = workload.instance(0)
    assert instance.mass.sum(axis=2) == pytest.approx(1.0) and instance.blocks.sizes.sum() == 120


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "Routes"),
        (Routes(np.ones((16, 16))), "int8"),
        (Routes(np.ones((3, 3), np.int8)), "shape"),
        (Routes(np.full((16, 16), 2, np.int8)), "-1, 0 or 1"),
        (Routes(np.zeros((16, 16), np.int8)), "no critical"),
        (Routes(np.ones((16, 16), np.int8)), "the budget is"),
    ],
)
def test_wrong_answers_are_refused_in_words(answer, words):
    class Wrong:
        def reset(self, spec, rng):
            pass

        def route(self, view):
            return answer

    with pytest.raises(CandidateError, match=words):
        run(Wrong(), RouteSpec(3, 1, 2), SMOKE.instance(0), np.random.default_rng(0))
