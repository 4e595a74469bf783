"""Checkpoints as Hugging Face writes them: ``config.json`` and safetensors, whole or in shards."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudchamber.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURES = ("gemma3_text", "llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of a layer: base, and the scaling of its frequencies (``rope_type`` and its parameters)."""

    theta: float
    scaling: tuple[tuple[str, Any], ...] = ()

    def frequencies(self, head_dim: int) -> Tensor:
        """Radians per position, shape (head_dim / 2,)."""
        import torch

        found: Tensor = 1.0 / self.theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
        scaling = dict(self.scaling)
        kind = scaling.get("rope_type", "default")
        if kind == "linear":
            return found / float(scaling["factor"])
        if kind == "llama3":  # long waves are stretched, short ones left, those between blended
            low, high, context = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
            waves = 2 * math.pi / found
            blend = ((context / waves - low) / (high - low)).clamp(0, 1)
            return torch.where(waves > context / low, found / scaling["factor"], (1 - blend) * found / scaling["factor"] + blend * found)
        return found


@dataclass(frozen=True)
class ModelConfig:
    """A decoder's shape, whatever words its ``config.json`` uses.

    Parameters
    ----------
    arch : str
        One of ``ARCHITECTURES``.
    vocab, hidden, intermediate, layers, heads, kv_heads, head_dim : int
    norm_eps : float
    max_len : int
        Positions that the model was made for.
    ropes : tuple of Rope
        One for each layer.
    windows : tuple of (int or None)
        Keys that a query of each layer reads, itself included; None: all before it.
    is_tied : bool
        Whether the output projection is the embedding.
    qkv_bias, out_bias, mlp_bias, has_qk_norm : bool
    eos_ids : frozenset of int
    query_scalar : float or None
        Gemma's, in place of ``head_dim`` in the scale of attention.
    """

    arch: str
    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    max_len: int
    ropes: tuple[Rope, ...]
    windows: tuple[int | None, ...]
    is_tied: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    has_qk_norm: bool
    eos_ids: frozenset[int]
    query_scalar: float | None = None

    @property
    def is_gemma(self) -> bool:
        """Whether norms store weight - 1 and also follow each block, embeddings are scaled, and the gate is a GELU."""
        return self.arch == "gemma3_text"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the checkpoint must have, and its shape."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden), "model.norm.weight": (self.hidden,)}
        if not self.is_tied:
            found["lm_head.weight"] = (self.vocab, self.hidden)
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if self.is_gemma else []
        linears = {
            "self_attn.q_proj": (queries, self.hidden, self.qkv_bias),
            "self_attn.k_proj": (keys, self.hidden, self.qkv_bias),
            "self_attn.v_proj": (keys, self.hidden, self.qkv_bias),
            "self_attn.o_proj": (self.hidden, queries, self.out_bias),
            "mlp.gate_proj": (self.intermediate, self.hidden, self.mlp_bias),
            "mlp.up_proj": (self.intermediate, self.hidden, self.mlp_bias),
            "mlp.down_proj": (self.hidden, self.intermediate, self.mlp_bias),
        }
        for i in range(self.layers):
            at = f"model.layers.{i}."
            for name in norms:
                found[f"{at}{name}.weight"] = (self.hidden,)
            for name, (rows, columns, has_bias) in linears.items():
                found[f"{at}{name}.weight"] = (rows, columns)
                if has_bias:
                    found[f"{at}{name}.bias"] = (rows,)
            if self.has_qk_norm:
                found[f"{at}self_attn.q_norm.weight"] = found[f"{at}self_attn.k_norm.weight"] = (self.head_dim,)
        return found


def read_config(path: Path) -> ModelConfig:
    """Read ``config.json`` of a checkpoint's directory, in the words of transformers 5 or of older ones.

    Raises
    ------
    InputError
        If it is missing, no JSON, or of an architecture or rope scaling that this engine does not compute.
    """
    file = path / "config.json"
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}. A checkpoint is a directory as Hugging Face writes it.") from None
    return config_of(found, file)


def config_of(found: Mapping[str, Any], file: Path) -> ModelConfig:
    """Read what ``config.json`` holds; ``file``: what errors name."""
    arch = found.get("model_type")
    if arch not in ARCHITECTURES:
        raise InputError(f"{file} is of architecture {arch!r}; this engine knows {', '.join(ARCHITECTURES)}.")
    try:
        heads, layers = found["num_attention_heads"], found["num_hidden_layers"]
        kinds = _layer_types(found, arch, layers)
        if found.get("partial_rotary_factor", 1.0) != 1.0:
            raise InputError(f"{file}: partial_rotary_factor {found['partial_rotary_factor']} is not supported; only 1.0 is.")
        if found.get("attn_logit_softcapping") or found.get("final_logit_softcapping") or found.get("use_bidirectional_attention"):
            raise InputError(f"{file}: soft-capped logits and bidirectional attention are not supported.")
        known = "gelu_pytorch_tanh" if arch == "gemma3_text" else "silu"
        activation = found.get("hidden_activation") or found.get("hidden_act") or known
        if activation != known:
            raise InputError(f"{file}: the activation {activation!r} is not supported; of {arch} only {known} is.")
        eos = found.get("eos_token_id")
        bias = bool(found.get("attention_bias", False))
        return ModelConfig(
            arch=arch,
            vocab=found["vocab_size"],
            hidden=found["hidden_size"],
            intermediate=found["intermediate_size"],
            layers=layers,
            heads=heads,
            kv_heads=found.get("num_key_value_heads") or heads,
            head_dim=found.get("head_dim") or found["hidden_size"] // heads,
            norm_eps=found.get("rms_norm_eps", 1e-6),
            max_len=found.get("max_position_embeddings", 2048),
            ropes=tuple(_rope(found, kind, file) for kind in kinds),
            windows=tuple(found.get("sliding_window") if kind == "sliding_attention" else None for kind in kinds),
            is_tied=bool(found.get("tie_word_embeddings", arch == "gemma3_text")),
            qkv_bias=bias or arch == "qwen2",
            out_bias=bias and arch != "qwen2",
            mlp_bias=bool(found.get("mlp_bias", False)),
            has_qk_norm=arch in ("qwen3", "gemma3_text"),
            eos_ids=frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos]),
            query_scalar=found.get("query_pre_attn_scalar", 256) if arch == "gemma3_text" else None,
        )
    except KeyError as error:
        raise InputError(f"{file} lacks {error}.") from None


def _layer_types(found: Mapping[str, Any], arch: str, layers: int) -> list[str]:
    """``full_attention`` or ``sliding_attention`` for each layer; older files leave it to the reader."""
    if found.get("layer_types"):
        return list(found["layer_types"])
    window = found.get("sliding_window")
    if arch == "gemma3_text":
        every = found.get("sliding_window_pattern") or found.get("_sliding_window_pattern") or 6
        return ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
    if arch == "mistral" and window:
        return ["sliding_attention"] * layers
    if arch in ("qwen2", "qwen3") and window and found.get("use_sliding_window"):
        full = found.get("max_window_layers", layers)
        return ["full_attention" if i < full else "sliding_attention" for i in range(layers)]
    return ["full_attention"] * layers


def _rope(found: Mapping[str, Any], kind: str, file: Path) -> Rope:
    settings = found.get("rope_parameters")
    if settings is not None:
        settings = settings.get(kind, settings)
        theta = settings.get("rope_theta", found.get("rope_theta", 10000.0))
    else:  # before transformers 5
        settings = found.get("rope_scaling") or {}
        theta = found.get("rope_theta", 10000.0)
        if kind == "sliding_attention" and "rope_local_base_freq" in found:
            settings, theta = {}, found["rope_local_base_freq"]
    settings = {("rope_type" if key == "type" else key): value for key, value in settings.items() if key != "rope_theta"}
    name = settings.get("rope_type", "default")
    if name not in ("default", "linear", "llama3"):
        raise InputError(f"{file}: rope scaling {name!r} is not supported; allowed are default, linear and llama3.")
    scaling = {} if name == "default" else settings
    return Rope(float(theta), tuple(sorted((key, value) for key, value in scaling.items() if not isinstance(value, list | dict))))


def read_tensors(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint, in the precision it is stored in.

    Raises
    ------
    InputError
        If a file is missing or truncated, or a tensor is missing, unknown or of another shape: by name.
    """
    from safetensors import safe_open

    wanted, found = config.tensors(), {}
    for file in _files(path):
        _check_size(file)
        with safe_open(file, "pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (no mapping)
                if name in wanted:
                    found[name] = shard.get_tensor(name)
                elif not (name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.is_tied)):
                    raise InputError(f"{file} has a tensor {name!r} that a {config.arch} of this config.json does not have.")
    for name, shape in wanted.items():
        if name not in found:
            raise InputError(f"{path} lacks the tensor {name!r}, shape {shape}.")
        if tuple(found[name].shape) != shape:
            raise InputError(f"the tensor {name!r} in {path} has shape {tuple(found[name].shape)}; by config.json it must have {shape}.")
    return found


def _files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if not index.exists():
        return [path / "model.safetensors"]
    try:
        return [path / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{index} is no index of shards: {type(error).__name__} {error}.") from None


def _check_size(file: Path) -> None:
    """Refuse a file that ends before its tensors do."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        size = file.stat().st_size - 8 - length
        ends = {name: each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"}
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}. The weights must be in safetensors files.") from None
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no safetensors file, or is truncated in its header: {error}.") from None
    cut = [name for name, end in sorted(ends.items(), key=lambda item: item[1]) if end > size]
    if cut:
        raise InputError(f"{file} is truncated: it ends within the tensor {cut[0]!r}. Fetch it again.")
