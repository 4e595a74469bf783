"""Needles in long contexts: what a small model with rotary positions still finds when its decodes read a part of the cache.

The model has two layers and is made here. One head looks one token back and one looks for the token that followed a key, both by the
weights it starts from (the first is held in place by biases, as Qwen2 has them); training on contexts of 64 to 1,024 tokens sharpens them,
with the other heads, the embedding and everything else. Contexts are noise with pairs "key value" in it; the last token is one of the keys,
and the answer is right if it is its value. Single: one pair; multi: eight pairs, each asked for. Prefill is dense; the query's token is
decoded by the method. Accuracy is that of the engine with greedy tokens.

Run: ``.venv/bin/python benchmarks/attention_needles.py [--contexts N,N] [--trials N]``.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, rms_norm, scaled_dot_product_attention, silu

from cloudchamber.attention.verified import BudgetSpec, ExactScores, FixedBudget, QuestPages, RatioBudget, VAttention, VAttentionDecode
from cloudchamber.core.results import Table
from cloudchamber.engine.clock import RealClock
from cloudchamber.engine.core import EngineCore
from cloudchamber.engine.executor import TorchExecutor
from cloudchamber.engine.kv import PagedKV
from cloudchamber.engine.layers import Model
from cloudchamber.engine.loading import ModelConfig, config_of
from cloudchamber.engine.model import CostModel, EngineSpec
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.request import Request

KINDS = 64  # of keys, of values and of noise
HIDDEN, HEADS, DIM, MLP, THETA = 128, 2, 64, 128, 1e8
PLAN = ((60, 32, 64, 8, 0.9), (60, 16, 256, 16, 0.5), (30, 4, 1024, 16, 0.1))  # steps, batch, tokens, keys, share of tokens in pairs
RATE = 2e-3
BLOCK = 16
SINK = WINDOW = 64
NEEDLES = 8

CONFIG = {
    "model_type": "qwen2", "vocab_size": 3 * KINDS, "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": 2,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": DIM, "rms_norm_eps": 1e-6, "rope_theta": THETA,
    "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip


def weights(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Random, but for the two heads that find what followed a key."""
    rng = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in config.tensors().items():
        scale = shape[-1] ** -0.5 * (4 if "embed" in name else 0.3 if "o_proj" in name or "down" in name else 1)
        start = torch.ones if "norm" in name else torch.zeros
        found[name] = start(shape) if "norm" in name or "bias" in name else scale * torch.randn(shape, generator=rng)
    first, second = "model.layers.0.self_attn.", "model.layers.1.self_attn."
    speed = 1 / THETA ** (torch.arange(0, DIM, 2) / DIM)
    fast = DIM // 4  # pairs of dimensions that turn fast tell positions apart; the slow ones hold what was there
    for name in "qk":
        found[f"{first}{name}_proj.weight"][:DIM] = 0
    turn = math.sqrt(60)
    found[first + "q_proj.bias"][:fast] = turn * torch.cos(speed[:fast])  # turned by one position, so that it meets the key before it
    found[first + "q_proj.bias"][DIM // 2 : DIM // 2 + fast] = -turn * torch.sin(speed[:fast])
    found[first + "k_proj.bias"][:fast] = turn
    basis = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, generator=rng))[0].T
    own, before, copied = basis[:DIM], basis[DIM:], torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, generator=rng))[0].T[:DIM]
    slow = (torch.arange(DIM) % (DIM // 2) >= fast).float()[:, None]
    found[first + "v_proj.weight"][:DIM], found[first + "o_proj.weight"][:, :DIM] = own, 0.5 * before.T
    found[second + "q_proj.weight"][:DIM], found[second + "k_proj.weight"][:DIM] = 2 * slow * own, 2 * slow * before
    found[second + "v_proj.weight"][:DIM], found[second + "o_proj.weight"][:, :DIM] = copied, copied.T
    return found


def forward(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits of every position, with gradients."""
    batch, length = ids.shape
    angles = torch.arange(length)[:, None] / THETA ** (torch.arange(0, DIM, 2) / DIM)
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()

    def turned(x: Tensor) -> Tensor:
        return x * cos + torch.cat((-x[..., DIM // 2 :], x[..., : DIM // 2]), -1) * sin

    x = weights["model.embed_tokens.weight"][ids]
    for layer in ("model.layers.0.", "model.layers.1."):
        h = rms_norm(x, (HIDDEN,), weights[layer + "input_layernorm.weight"], 1e-6)
        q, k, v = (
            linear(h, weights[f"{layer}self_attn.{name}_proj.weight"], weights[f"{layer}self_attn.{name}_proj.bias"])
            .view(batch, length, HEADS, DIM)
            .transpose(1, 2)
            for name in "qkv"
        )
        mixed = scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + linear(mixed.transpose(1, 2).flatten(2), weights[layer + "self_attn.o_proj.weight"])
        h = rms_norm(x, (HIDDEN,), weights[layer + "post_attention_layernorm.weight"], 1e-6)
        gate, up = (linear(h, weights[f"{layer}mlp.{name}_proj.weight"]) for name in ("gate", "up"))
        x = x + linear(silu(gate) * up, weights[layer + "mlp.down_proj.weight"])
    return linear(rms_norm(x, (HIDDEN,), weights["model.norm.weight"], 1e-6), weights["model.embed_tokens.weight"])


def examples(rng: np.random.Generator, batch: int, length: int, keys: int, share: float) -> tuple[Tensor, Tensor]:
    """Noise with pairs in it, and the value of every key that was there before as what comes next; elsewhere nothing is asked."""
    ids = rng.integers(2 * KINDS, 3 * KINDS, (batch, length + 1))
    wanted = np.full((batch, length + 1), -100)
    pairs = int(share * length / 2)
    for b in range(batch):
        key, value = rng.choice(KINDS, keys, replace=False), KINDS + rng.integers(KINDS, size=keys)
        at = np.sort(rng.choice(length + 1 - pairs, pairs, replace=False)) + np.arange(pairs)
        which = rng.integers(keys, size=pairs)
        ids[b, at], ids[b, at + 1] = key[which], value[which]
        is_known = np.ones(pairs, bool)
        is_known[np.unique(which, return_index=True)[1]] = False
        wanted[b, at[is_known] + 1] = value[which[is_known]]
    return torch.from_numpy(ids[:, :-1]), torch.from_numpy(wanted[:, 1:])


def trained(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """The model's weights after the plan: AdamW, warm-up, cosine decay."""
    found, rng = weights(config, seed), np.random.default_rng(seed)
    for value in found.values():
        value.requires_grad_()
    optimizer = torch.optim.AdamW(found.values(), betas=(0.9, 0.95), weight_decay=0.01)
    total, step = sum(steps for steps, *_ in PLAN), 0
    for steps, *shape in PLAN:
        for _ in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * min((step + 1) / 10, 0.05 + 0.475 * (1 + math.cos(math.pi * step / total)))
            ids, wanted = examples(rng, *shape)
            loss = cross_entropy(forward(found, ids).flatten(0, 1), wanted.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(found.values()), 1.0)
            optimizer.step()
            step += 1
    return {name: value.detach() for name, value in found.items()}


def methods(context: int) -> dict[str, VAttention]:
    """What is compared, by Quest's bounds where nothing else is said. The fixed ones read a tenth of the cache."""
    ends = {"sink": SINK, "window": WINDOW}
    left = max(0.0, 0.1 - (SINK + WINDOW) / context)
    floor = BudgetSpec(floor=2, pilot=0.0)
    found = {
        "dense": VAttention(budget=FixedBudget(1.0), **ends),
        "top-k": VAttention(QuestPages(BLOCK), None, top=left, **ends),
        "top-k, exact scores": VAttention(ExactScores(), None, top=left, **ends),
        "uniform": VAttention(QuestPages(BLOCK), FixedBudget(left), top=0.0, spec=floor, **ends),
    }
    for epsilon in (0.05, 0.1, 0.2, 0.4):
        found[f"vAttention, epsilon {epsilon:g}"] = VAttention(QuestPages(BLOCK), RatioBudget(), spec=BudgetSpec(epsilon=epsilon), **ends)
    found["the same, exact scores, 0.4"] = VAttention(ExactScores(), RatioBudget(), spec=BudgetSpec(epsilon=0.4), **ends)
    return found


class Asked:
    """An engine with one context at a time, asked for its needles."""

    def __init__(self, config: ModelConfig, tensors: dict[str, Tensor], context: int) -> None:
        model = Model(config, dict(tensors))
        self.decode = VAttentionDecode(VAttention(budget=FixedBudget(1.0)), config.windows)
        executor = TorchExecutor(model, decode_attention=self.decode)
        blocks = context // BLOCK + 8
        kv = PagedKV(blocks, BLOCK, executor.layout(blocks, BLOCK), True)
        executor.attach(kv)
        spec = EngineSpec(BLOCK, blocks, 1024, 4, CostModel(0.001, 0.0, 0.0, 0.0, 0.0))
        policy = FCFS()
        policy.reset(spec, np.random.default_rng(0))
        self.core, self.names = EngineCore(kv, policy, executor, RealClock(), spec), 0

    def tell(self, prompt: list[int]) -> int:
        """The token that follows."""
        self.names += 1
        request = Request(self.names, len(prompt), 1, tokens=list(prompt))
        self.core.add(request)
        while self.core.requests:
            self.core.step()
        return request.tokens[-1]


def needles(rng: np.random.Generator, context: int, count: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """A context with some pairs, their keys and their values."""
    ids = rng.integers(2 * KINDS, 3 * KINDS, context)
    key, value = rng.choice(KINDS, count, replace=False), KINDS + rng.integers(KINDS, size=count)
    at = 2 * rng.choice(context // 2, count, replace=False)
    ids[at], ids[at + 1] = key, value
    return ids.tolist(), key, value


def measured(config: ModelConfig, tensors: dict[str, Tensor], context: int, trials: int) -> dict[str, tuple[float, ...]]:
    """Of every method: accuracy with one needle and with several, share of the cache's bytes that was read, bounds besides."""
    rng, found = np.random.default_rng(context), {name: np.zeros(6) for name in methods(context)}
    whole = context * 2 * config.layers * config.kv_heads * config.head_dim * 4
    for several in (False, True):
        for _ in range(trials if several else trials * 2):
            ids, key, value = needles(rng, context, NEEDLES if several else 1)
            asked = Asked(config, tensors, context)
            asked.tell(ids)  # fills the cache; all that follow find it there
            for name, attention in methods(context).items():
                asked.decode.attention = attention
                for k, v in zip(key.tolist(), value.tolist(), strict=True):
                    is_right = asked.tell([*ids, k]) == v
                    found[name] += (is_right * (not several), not several, is_right * several, several, 0, 0)
                    found[name][4:] += asked.decode.kv_bytes / whole, asked.decode.sketch_bytes / whole
    return {
        name: (right / asked, many / all_asked, read / (asked + all_asked), bounds / (asked + all_asked))
        for name, (right, asked, many, all_asked, read, bounds) in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", default="1024,2048,4096,8192,16384")
    parser.add_argument("--trials", type=int, default=4, help="contexts with several needles; twice as many with one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = config_of(CONFIG, Path("config.json"))
    began = time.process_time()
    tensors = trained(config)
    print(f"trained in {time.process_time() - began:.0f} s of processor time, on at most {PLAN[-1][2]:,} tokens")
    rows = []
    for context in map(int, options.contexts.split(",")):
        found = measured(config, tensors, context, options.trials)
        for name, (single, several, read, bounds) in found.items():
            base = found["dense"]
            parts = [f"{a:.3f} ({a / b:.0%})" if b else f"{a:.3f}" for a, b in ((single, base[0]), (several, base[1]))]
            rows.append((f"{context:,}", name, *parts, f"{read:.3f}", f"{bounds:.3f}"))
        print(
            Table(("context", "method", "single (of dense)", "multi (of dense)", "cache read", "bounds"), tuple(rows[-len(found) :])),
            flush=True,
        )


if __name__ == "__main__":
    main()
