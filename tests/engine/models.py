"""Small random checkpoints as transformers writes them, and its own greedy answers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import transformers

torch.set_num_threads(1)  # small products on busy cores: more threads only wait for each other
transformers.utils.logging.disable_progress_bar()

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SIZES |= {"max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "initializer_range": 0.3}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
GEMMA_ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
}


def _llama(**more):
    return transformers.LlamaConfig(**SIZES | more)


ARCHITECTURES = {
    "llama2": lambda: _llama(num_key_value_heads=4),
    "llama3": lambda: _llama(rope_parameters=LLAMA3 | {"rope_theta": 5e5}, attention_bias=True, mlp_bias=True),
    "llama-tied": lambda: _llama(tie_word_embeddings=True, num_key_value_heads=1),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=16),
    "qwen3-window": lambda: transformers.Qwen3Config(
        **SIZES, head_dim=16, use_sliding_window=True, sliding_window=12, layer_types=["sliding_attention"] * 2 + ["full_attention"]
    ),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=10),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **SIZES | {"num_hidden_layers": 6}, head_dim=16, sliding_window=9, query_pre_attn_scalar=24, rope_parameters=GEMMA_ROPES
    ),
}


def write(folder: Path, name: str, **saving) -> Path:
    """Write a random checkpoint, biases and norms too."""
    torch.manual_seed(7)
    config = ARCHITECTURES[name]()
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for each, tensor in model.named_parameters():
            if tensor.dim() == 1:
                tensor.normal_(1.0 if "norm" in each and "gemma" not in name else 0.0, 0.2)
    model.save_pretrained(folder, **saving)
    return folder


@cache
def peer(folder: Path):
    """The checkpoint in transformers."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def assert_greedy(folder: Path, prompt: list[int], answer: list[int]) -> None:
    """Every token is transformers' likeliest, up to the first step where its two best lie within 1e-4."""
    with torch.inference_mode():
        logits = peer(folder)(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    best = logits.topk(2, dim=1)
    for token, values, ids in zip(answer, best.values.tolist(), best.indices.tolist(), strict=True):
        if values[0] - values[1] < 1e-4:
            return
        assert token == ids[0], (values, ids, token)
