"""A Llama-like decoder on flat rows. Parts that act on each token alone are functions of any slice of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from .kernels import Linear
from .loading import ModelConfig


class Layer:
    """One block's weights and token-wise parts: ``project`` before attention, ``finish`` after it."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Tensor], linear: Callable[[Tensor, Tensor | None], Linear]) -> None:
        self.config = config

        def fused(*names: str) -> Linear:
            bias = [weights[f"{name}.bias"] for name in names if f"{name}.bias" in weights]
            return linear(torch.cat([weights[f"{name}.weight"] for name in names]), torch.cat(bias) if bias else None)

        self.qkv = fused(*(f"self_attn.{each}_proj" for each in "qkv"))
        self.out = fused("self_attn.o_proj")
        self.gate_up = fused("mlp.gate_proj", "mlp.up_proj")
        self.down = fused("mlp.down_proj")
        self.before_attention = weights["input_layernorm.weight"]
        after = "post_attention_layernorm.weight"
        self.before_mlp = weights["pre_feedforward_layernorm.weight" if config.is_gemma else after]
        self.after_attention = weights[after] if config.is_gemma else None
        self.after_mlp = weights.get("post_feedforward_layernorm.weight")
        self.q_norm, self.k_norm = weights.get("self_attn.q_norm.weight"), weights.get("self_attn.k_norm.weight")

    def project(self, x: Tensor, turn: Tensor) -> Tensor:
        """Normalise, project and rotate rows of the residual: (rows, heads + 2 · kv heads, head dimension).

        ``turn``: e^(i · angle) of each row's position, (rows, 1, head dimension / 2). Pairs of a head lie side by side.
        """
        c = self.config
        qkv = self.qkv(self._norm(x, self.before_attention)).view(len(x), -1, c.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            qkv[:, : c.heads] = self._norm(qkv[:, : c.heads], self.q_norm)
            qkv[:, c.heads : c.heads + c.kv_heads] = self._norm(qkv[:, c.heads : c.heads + c.kv_heads], self.k_norm)
        turning = qkv[:, : c.heads + c.kv_heads].view(len(x), -1, c.head_dim // 2, 2)
        if qkv.dtype == torch.float32:
            torch.view_as_complex(turning).mul_(turn)
        else:
            turning.copy_(torch.view_as_real(torch.view_as_complex(turning.float()) * turn))
        return qkv

    def finish(self, x: Tensor, attended: Tensor) -> None:
        """Add attention's output and the MLP's to rows of the residual, in place."""
        found = self.out(attended)
        x += found if self.after_attention is None else self._norm(found, self.after_attention)
        gate, up = self.gate_up(self._norm(x, self.before_mlp)).chunk(2, dim=1)
        found = self.down((functional.gelu(gate, approximate="tanh") if self.config.is_gemma else functional.silu(gate)).mul_(up))
        x += found if self.after_mlp is None else self._norm(found, self.after_mlp)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight, self.config.norm_eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / √(mean x² + eps) · weight over the last axis; for float32 in fewer and faster operations than torch's own."""
    if x.dtype != torch.float32:
        return functional.rms_norm(x, x.shape[-1:], weight, eps)
    length = torch.linalg.vector_norm(x, 2, -1, True)
    found = x * torch.addcmul(length.new_tensor(eps), length, length, value=1 / x.shape[-1]).rsqrt_()
    return found.mul_(weight)


class Model:
    """A decoder: embedding, layers, output projection.

    Parameters
    ----------
    config : ModelConfig
    tensors : mapping of str to Tensor
        As the checkpoint has them; emptied as they are used, so that none is held twice.
    linear : callable (weight, bias) -> Linear
        Makes the projections.
    dtype : torch.dtype
        Of activations and of KV.
    device : str
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: dict[str, Tensor],
        linear: Callable[[Tensor, Tensor | None], Linear] = Linear,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.config, self.dtype, self.device = config, dtype, device

        def take(name: str) -> Tensor:
            return _folded(config, name, tensors.pop(name).float()).to(device, dtype).contiguous()

        self.embedding = take("model.embed_tokens.weight")
        self.norm = take("model.norm.weight")
        self.head = linear(self.embedding if config.is_tied else take("lm_head.weight"), None)
        self.layers = []
        for i in range(config.layers):
            at = f"model.layers.{i}."
            self.layers.append(Layer(config, {name[len(at) :]: take(name) for name in list(tensors) if name.startswith(at)}, linear))
        self._frequencies = {rope: rope.frequencies(config.head_dim).to(device) for rope in set(config.ropes)}

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows of the residual, (tokens, hidden)."""
        x = self.embedding.index_select(0, tokens)
        return x * torch.tensor(self.config.hidden**0.5, dtype=self.dtype) if self.config.is_gemma else x

    def turns(self, positions: Tensor) -> list[Tensor]:
        """For each layer e^(i · angle) of these positions, (positions, 1, head dimension / 2)."""
        found = {}
        for rope, frequencies in self._frequencies.items():
            angles = (positions[:, None].float() * frequencies)[:, None]
            found[rope] = torch.polar(torch.ones_like(angles), angles)
        return [found[rope] for rope in self.config.ropes]

    def logits(self, x: Tensor) -> Tensor:
        """Logits of rows of the residual, float32, (rows, vocabulary)."""
        return self.head(rms_norm(x, self.norm, self.config.norm_eps)).float()


def _folded(config: ModelConfig, name: str, tensor: Tensor) -> Tensor:
    """Lay a tensor out as the layers want it: pairs of rotary dimensions side by side, Gemma's constants folded in."""
    if config.is_gemma and "norm" in name:
        tensor = tensor + 1
    if config.query_scalar is not None and "q_norm" in name:
        tensor = tensor * (config.head_dim / config.query_scalar) ** 0.5
    if any(part in name for part in ("q_proj", "k_proj", "q_norm", "k_norm")):
        half = config.head_dim // 2
        tensor = tensor.view(-1, 2, half, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
    return tensor
