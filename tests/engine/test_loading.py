"""Checkpoints: old and new words, shards, and errors that name the tensor."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from cloudchamber.core.errors import InputError
from cloudchamber.engine.loading import read_config, read_tensors

from . import models


@pytest.fixture
def folder(tmp_path):
    return models.write(tmp_path / "model", "llama2")


def change(folder, **values):
    file = folder / "config.json"
    found = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in found.items() if value is not ...}))


def retensor(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def fault(folder) -> str:
    with pytest.raises(InputError) as raised:
        read_tensors(folder, read_config(folder))
    return str(raised.value)


def test_shards_hold_what_one_file_holds(tmp_path):
    whole = models.write(tmp_path / "whole", "llama2")
    shards = models.write(tmp_path / "shards", "llama2", max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    one, many = (read_tensors(each, read_config(each)) for each in (whole, shards))
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    next(iter(sorted(shards.glob("*.safetensors")))).unlink()
    assert "cannot be read" in fault(shards)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_tensor_that_transformers_writes_is_known(tmp_path, name):
    folder = models.write(tmp_path / name, name)
    config = read_config(folder)
    found = read_tensors(folder, config)
    assert {each: tuple(tensor.shape) for each, tensor in found.items()} == config.tensors()


def test_old_and_new_words_for_rope_mean_the_same(tmp_path):
    folder = models.write(tmp_path / "model", "llama3")
    new = read_config(folder)
    assert new.ropes[0].theta == 5e5
    change(
        folder, rope_parameters=..., rope_theta=5e5, rope_scaling={"type" if k == "rope_type" else k: v for k, v in models.LLAMA3.items()}
    )
    assert read_config(folder) == new


def test_llama3_frequencies_are_those_of_transformers(tmp_path):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    folder = models.write(tmp_path / "model", "llama3")
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](models.ARCHITECTURES["llama3"](), "cpu")
    assert torch.allclose(read_config(folder).ropes[0].frequencies(8), expected, rtol=1e-6)


def test_windows_of_old_files_are_found(tmp_path):
    folder = models.write(tmp_path / "model", "gemma3")
    assert read_config(folder).windows == (9,) * 5 + (None,)
    change(folder, layer_types=..., sliding_window_pattern=3)
    assert read_config(folder).windows == (9, 9, None) * 2
    folder = models.write(tmp_path / "mistral", "mistral")
    assert read_config(folder).windows == (10,) * 3
    change(folder, sliding_window=None)
    assert read_config(folder).windows == (None,) * 3
    folder = models.write(tmp_path / "qwen", "qwen2")
    change(folder, layer_types=..., use_sliding_window=True, sliding_window=7, max_window_layers=1)
    assert read_config(folder).windows == (None, 7, 7)


def test_a_missing_tensor_is_named(folder):
    retensor(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "lacks the tensor 'model.layers.1.mlp.up_proj.weight', shape (48, 32)" in fault(folder)


def test_an_unknown_tensor_is_named(folder):
    retensor(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}))
    assert "'model.layers.0.self_attn.q_proj.bias'" in fault(folder)


def test_a_tensor_of_another_shape_is_named(folder):
    change(folder, intermediate_size=50)
    assert "'model.layers.0.mlp.gate_proj.weight'" in (told := fault(folder))
    assert "(48, 32)" in told
    assert "(50, 32)" in told


def test_a_truncated_file_names_the_tensor_it_ends_in(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert "ends within the tensor 'model." in fault(folder)
    file.write_bytes(whole[:40])
    assert "truncated in its header" in fault(folder)
    file.write_bytes(b"")
    assert "truncated" in fault(folder)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"model_type": "mamba"}, "architecture 'mamba'; this engine knows gemma3_text, llama"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope scaling 'yarn'"),
        ({"hidden_size": ...}, "lacks 'hidden_size'"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_what_is_not_computed_is_refused(folder, values, told):
    change(folder, **values)
    assert told in fault(folder)


def test_no_checkpoint_is_refused(tmp_path):
    assert "config.json cannot be read" in fault(tmp_path)
