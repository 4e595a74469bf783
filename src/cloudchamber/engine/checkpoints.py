"""Small checkpoints made on the spot, so that nothing need be downloaded: random ones, or ones trained on Python's standard library."""

from __future__ import annotations

import ast
import json
import shutil
import sysconfig
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudchamber.core.errors import InputError, MissingExtra

from .loading import ModelConfig, config_of

if TYPE_CHECKING:
    import torch

Told = Callable[[int, float], None] | None  # of each step and its loss
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
EOS, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT = (
    "{% for m in messages %}" + TURN + "{{ m['role'] }}\n{{ m['content'] }}" + END + "\n{% endfor %}"
    "{% if add_generation_prompt %}" + TURN + "assistant\n{% endif %}"
)
STEPS = 300  # of the demo: a few minutes on one core


@dataclass(frozen=True)
class Shape:
    """Sizes of a small model, in the words of its ``config.json``."""

    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    vocab_size: int = 2048
    max_position_embeddings: int = 4096


def tiny(
    folder: Path | str,
    arch: str = "llama",
    train_steps: int = 0,
    *,
    shape: Shape = Shape(),
    seed: int = 0,
    progress: Told = None,
) -> Path:
    """Write a valid checkpoint folder: ``config.json``, weights, a byte-level BPE tokenizer, a chat template.

    Parameters
    ----------
    folder : Path
        Appears whole or not at all.
    arch : {"llama", "mistral", "qwen2", "qwen3"}
    train_steps : int, default 0
        Steps of 2,048 tokens on the source and docstrings of Python's standard library, about a second each on one core; 0 leaves
        random weights, whose logits are flat.
    shape : Shape
    seed : int
    progress : callable (step, loss) -> None, optional

    Raises
    ------
    InputError
        If the architecture is not known, or the folder exists.
    MissingExtra
        Without torch, safetensors or tokenizers.
    """
    if arch not in ARCHITECTURES:
        raise InputError(f"arch must be one of {', '.join(ARCHITECTURES)}, got {arch!r}.")
    target = Path(folder)
    if target.exists():
        raise InputError(f"{target} exists; name a folder that does not.")
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise MissingExtra("making checkpoints needs torch, safetensors and tokenizers", "engine") from None
    texts = list(islice(_texts(), 200 + 8 * train_steps))
    tokenizer = _tokenizer(texts, shape.vocab_size)
    configs = _configs(arch, shape, [tokenizer.token_to_id(EOS), tokenizer.token_to_id(END)])
    weights = _weights(config_of(configs["config.json"], target), seed)
    if train_steps:
        _train(weights, arch, shape, tokenizer, texts, train_steps, seed, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        save_file({name: value.detach().contiguous() for name, value in weights.items()}, making / "model.safetensors", {"format": "pt"})
        tokenizer.save(str(making / "tokenizer.json"))
        for name, content in configs.items():
            (making / name).write_text(json.dumps(content, indent=1) + "\n")
        making.chmod(0o755)
        making.rename(target)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return target


def demo(progress: Told = None) -> Path:
    """Return the trained demo checkpoint, made once and kept in the user's cache."""
    folder = demo_folder()
    if not folder.is_dir():
        try:
            tiny(folder, train_steps=STEPS, progress=progress)
        except (InputError, OSError):
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def demo_folder() -> Path:
    """Where the demo checkpoint lies, once it is made."""
    from platformdirs import user_cache_path

    return user_cache_path("cloudchamber") / "engine" / f"demo-{STEPS}"


def _configs(arch: str, shape: Shape, ends: list[int]) -> dict[str, Any]:
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ends[0])
    kind = {"architectures": [ARCHITECTURES[arch]], "model_type": arch, "tie_word_embeddings": True, "torch_dtype": "float32"}
    config = kind | asdict(shape) | {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0} | ids
    if arch == "mistral":
        config["sliding_window"] = None
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "bos_token": EOS, "pad_token": EOS, "chat_template": CHAT}
    return {
        "config.json": config,
        "generation_config.json": ids | {"eos_token_id": ends},
        "tokenizer_config.json": tokenizer | {"model_max_length": shape.max_position_embeddings},
    }


def _texts() -> Iterator[str]:
    """Source files of the standard library, and its documented functions as questions and answers."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="ignore")
        yield source
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and (words := ast.get_docstring(node)) and len(words) < 300:
                code = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
                if len(code) < 1200:
                    yield f"{TURN}user\n{words.strip().splitlines()[0]}{END}\n{TURN}assistant\n{code}{END}\n"


def _tokenizer(texts: list[str], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[EOS, TURN, END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _weights(config: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    import torch

    rng = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in config.tensors().items():
        scale = 0.02 if "embed" in name else 0.1 if name.endswith("bias") else shape[-1] ** -0.5
        found[name] = torch.ones(shape) if "norm" in name else torch.randn(shape, generator=rng) * scale
    return found


def _train(
    weights: dict[str, torch.Tensor], arch: str, shape: Shape, tokenizer: Any, texts: list[str], steps: int, seed: int, progress: Told
) -> None:
    """AdamW with warm-up and cosine decay on random windows of 256 tokens, on one thread, so that it can be repeated to the bit."""
    import math

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    end = tokenizer.token_to_id(EOS)
    data = torch.tensor([token for each in tokenizer.encode_batch(texts) for token in [*each.ids, end]])
    rng, length, batch = torch.Generator().manual_seed(seed), 256, 8
    for value in weights.values():
        value.requires_grad_()
    plain = [value for value in weights.values() if value.dim() < 2]
    matrices = [value for value in weights.values() if value.dim() == 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.95))
    warm = max(1, steps // 20)
    for step in range(steps):
        rate = 3e-3 * min((step + 1) / warm, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = torch.randint(len(data) - length - 1, (batch, 1), generator=rng) + torch.arange(length + 1)
        window = data[at]
        logits = _forward(weights, arch, shape, window[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        if progress is not None:
            progress(step + 1, float(loss.detach()))
    torch.set_num_threads(threads)


def _forward(weights: dict[str, torch.Tensor], arch: str, shape: Shape, ids: torch.Tensor) -> torch.Tensor:
    """Logits of every position, for training: the engine has its own, faster way."""
    import torch
    from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

    batch, length = ids.shape
    dim = shape.head_dim
    angles = torch.arange(length)[:, None] / 10000.0 ** (torch.arange(0, dim, 2) / dim)
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()

    def rotate(x: torch.Tensor) -> torch.Tensor:
        return x * cos + torch.cat((-x[..., dim // 2 :], x[..., : dim // 2]), -1) * sin

    x = weights["model.embed_tokens.weight"][ids]
    for i in range(shape.num_hidden_layers):
        layer = f"model.layers.{i}."
        h = rms_norm(x, (shape.hidden_size,), weights[layer + "input_layernorm.weight"], 1e-6)
        q, k, v = (
            linear(h, weights[f"{layer}self_attn.{name}_proj.weight"], weights.get(f"{layer}self_attn.{name}_proj.bias"))
            .view(batch, length, -1, dim)
            .transpose(1, 2)
            for name in "qkv"
        )
        if arch == "qwen3":
            q = rms_norm(q, (dim,), weights[layer + "self_attn.q_norm.weight"], 1e-6)
            k = rms_norm(k, (dim,), weights[layer + "self_attn.k_norm.weight"], 1e-6)
        mixed = scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True, enable_gqa=True)
        x = x + linear(mixed.transpose(1, 2).flatten(2), weights[layer + "self_attn.o_proj.weight"])
        h = rms_norm(x, (shape.hidden_size,), weights[layer + "post_attention_layernorm.weight"], 1e-6)
        gate, up = linear(h, weights[layer + "mlp.gate_proj.weight"]), linear(h, weights[layer + "mlp.up_proj.weight"])
        x = x + linear(silu(gate) * up, weights[layer + "mlp.down_proj.weight"])
    return linear(rms_norm(x, (shape.hidden_size,), weights["model.norm.weight"], 1e-6), weights["model.embed_tokens.weight"])
