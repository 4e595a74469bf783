"""Sparse attention inside models that are already there."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional

from cloudchamber.attention import convert, revert
from cloudchamber.attention.layouts import Raster
from cloudchamber.attention.model import Grid, Selection
from cloudchamber.attention.sparse import Schedule, SparseAttention
from cloudchamber.core.errors import InputError

DENSE = functional.scaled_dot_product_attention


class Share:
    """The first blocks, as many as may be read."""

    def __init__(self, everything=False):
        self.everything = everything

    def reset(self, spec, rng):
        self.grid = None

    def select(self, scene):
        self.grid = scene.grid
        mask = np.zeros((1, scene.q_blocks.count, scene.k_blocks.count), bool)
        mask[..., : None if self.everything else scene.keep] = True
        return Selection(mask)


class Hooked(torch.nn.Module):
    """Attention with a hook of its own."""

    def attend(self, q, k, v, **context):
        return DENSE(q, k, v)

    def forward(self, x):
        q = x[:, None]
        return self.attend(q, q, q)[:, 0]


class Plain(torch.nn.Module):
    """Attention that calls torch's function."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, x):
        q = x[:, None]
        return functional.scaled_dot_product_attention(q, q, q, **self.options)[:, 0]


def _model(*attentions):
    return torch.nn.ModuleDict({f"b{i}": torch.nn.ModuleDict({"attn": each}) for i, each in enumerate(attentions)})


def _all():
    return SparseAttention(Share(everything=True), layout=Raster(8))


def _some():
    return SparseAttention(Share(), layout=Raster(8), density=0.25)


@pytest.mark.parametrize("module", [Hooked(), Plain(), Plain(scale=0.3)])
def test_all_blocks_give_what_the_module_gave(module):
    x = torch.randn(2, 32, 16)
    before = module(x)
    model = _model(module)
    (converted,) = convert(model, _all, "b*.attn")
    assert torch.allclose(module(x), before, atol=5e-6)
    assert converted.last.density == 1.0
    assert revert(model) == 1
    assert torch.equal(module(x), before)
    assert functional.scaled_dot_product_attention is DENSE


@pytest.mark.parametrize("training", [True, False])
def test_multihead_attention_is_converted_in_place(training):
    module = torch.nn.MultiheadAttention(16, 2, batch_first=True).train(training)
    model, x = _model(module), torch.randn(2, 32, 16)
    before, names = module(x, x, x, need_weights=False)[0], set(model.state_dict())
    (converted,) = convert(model, _all, "b0.attn")
    assert torch.allclose(module(x, x, x, need_weights=False)[0], before, atol=5e-6)
    assert set(model.state_dict()) == names
    revert(model)
    assert torch.equal(module(x, x, x, need_weights=False)[0], before)
    (converted,) = convert(model, _some, "b0.attn")
    assert not torch.allclose(module(x, x, x, need_weights=False)[0], before, atol=1e-3)
    assert converted.last.density == 0.25


def test_a_whole_encoder_in_inference_reads_its_share():
    layer = torch.nn.TransformerEncoderLayer(16, 2, dim_feedforward=16, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    converted = convert(model, _some, "layers.*.self_attn")
    with torch.no_grad():
        model(torch.randn(1, 64, 16))
    assert [each.name for each in converted] == ["layers.0.self_attn", "layers.1.self_attn"]
    assert [each.last.density for each in converted] == [0.25, 0.25]


def test_what_sparse_attention_cannot_do_stays_dense_and_is_counted():
    module, x = Plain(is_causal=True), torch.randn(1, 16, 8)
    before = module(x)
    (converted,) = convert(_model(module), _some, "*.attn")
    assert torch.equal(module(x), before)
    assert converted.skipped == 1
    assert converted.last is None


def test_other_modules_are_left_alone():
    model, x = _model(Plain(), Plain()), torch.randn(1, 32, 8)
    before = model["b1"]["attn"](x)
    convert(model, _some, "b0.attn")
    assert not torch.allclose(model["b0"]["attn"](x), before, atol=1e-3)
    assert torch.equal(model["b1"]["attn"](x), before)


def test_two_threads_may_run_two_modules_at_once():
    model, meet = _model(Plain(), Plain()), threading.Barrier(2)

    class Meeting(Share):
        def select(self, scene):
            meet.wait(timeout=10)  # both are inside
            return super().select(scene)

    made = convert(model, lambda: SparseAttention(Meeting(), layout=Raster(8), density=0.25), "b?.attn")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: each["attn"](torch.randn(1, 32, 8)), model.values()))
    assert [each.last.density for each in made] == [0.25, 0.25]
    assert functional.scaled_dot_product_attention is DENSE


def test_layers_know_their_place_and_context_reaches_the_call():
    model = _model(Plain(), Plain(), Plain(), Plain())
    made = convert(model, lambda: SparseAttention(Share(), layout=Raster(8), density=0.25, schedule=Schedule(dense_layers=0.25)), "b?.attn")
    x = torch.randn(1, 32, 8)
    for each in model.values():
        each["attn"](x)
    assert [each.last.density for each in made] == [1.0, 0.25, 0.25, 0.25]
    made[1].context["grid"] = Grid(2, 4, 4)
    model["b1"]["attn"](x)
    assert made[1].attention.selector.grid == Grid(2, 4, 4)


def test_a_corrections_parameters_are_trained_and_saved_with_the_model():
    class Gain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(1))

        def forward(self, fine, q, k, v, index, x=None):
            return fine[0] * self.gain

    model = _model(Plain())
    convert(model, lambda: SparseAttention(Share(), layout=Raster(8), correction=Gain()), "b0.attn")
    model["b0"]["attn"](torch.randn(1, 32, 8)).sum().backward()
    assert [name for name, each in model.named_parameters() if each.grad is not None] == ["b0.attn._sparse_attention.correction.gain"]


def test_patterns_that_cannot_be_meant_are_refused():
    model = _model(Plain())
    with pytest.raises(InputError, match=r"names that may be attention: b0\.attn"):
        convert(model, _all, "layers.*")
    with pytest.raises(InputError, match="lies inside another"):
        convert(model, _all, "b0*")
    convert(model, _all, "b0.attn")
    with pytest.raises(InputError, match="converted already"):
        convert(model, _all, "b0.attn")


def test_a_copy_of_a_converted_model_computes_with_its_own_weights():
    layer = torch.nn.TransformerEncoderLayer(16, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
    model = torch.nn.ModuleDict({"layer": layer})
    convert(model, _some, "layer.self_attn")
    x = torch.randn(2, 32, 16)
    before = layer(x)
    twin = copy.deepcopy(model)
    for each in twin["layer"].self_attn.parameters():
        torch.nn.init.zeros_(each)
    assert not torch.allclose(twin["layer"](x), before, atol=1e-3)
    assert torch.equal(layer(x), before)
    assert revert(twin) == 1
    assert torch.equal(layer(x), before)


def test_a_model_can_be_copied_after_a_call_with_gradients():
    module = Hooked()
    model, x = _model(module), torch.randn(2, 32, 16, requires_grad=True)
    convert(model, _some, "*.attn")
    out = module(x)
    copy.deepcopy(model)
    out.sum().backward()
    assert x.grad is not None


def test_a_correction_joins_its_module_in_precision():
    model = _model(torch.nn.MultiheadAttention(16, 2, batch_first=True, dtype=torch.float64))
    convert(model, lambda: SparseAttention(Share(), layout=Raster(8), correction=torch.nn.Linear(8, 8), density=0.25), "b0.attn")
    assert {each.dtype for each in model.parameters()} == {torch.float64}
