"""Checkpoints made on the spot."""

from __future__ import annotations

import json

import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.engine.checkpoints import ARCHITECTURES, Shape, tiny

SMALL = Shape(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=512
)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_transformers_reads_it_and_agrees_on_every_logit(tmp_path, arch):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cloudchamber.engine.checkpoints import _forward

    folder = tiny(tmp_path / arch, arch, shape=SMALL, seed=1)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer.encode("def double(x):\n    return 2 * x")])
    assert torch.allclose(model(ids).logits, _forward(load_file(folder / "model.safetensors"), arch, SMALL, ids), atol=1e-5)
    assert len(tokenizer) == SMALL.vocab_size


def test_training_lowers_the_loss_and_repeats_itself(tmp_path):
    losses: list[float] = []
    first = tiny(tmp_path / "a", train_steps=8, shape=SMALL, progress=lambda step, loss: losses.append(loss))
    second = tiny(tmp_path / "b", train_steps=8, shape=SMALL)
    assert losses[-1] < losses[0] - 0.1
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "new", train_steps=1, shape=SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_and_an_unknown_architecture_are_refused(tmp_path):
    with pytest.raises(InputError, match="exists"):
        tiny(tmp_path)
    with pytest.raises(InputError, match="arch must be one of llama"):
        tiny(tmp_path / "x", "gpt2")


def test_its_configuration_ends_answers_at_both_marks(tmp_path):
    folder = tiny(tmp_path / "m", shape=SMALL)
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [
        ids["<|endoftext|>"],
        ids["<|im_end|>"],
    ]
