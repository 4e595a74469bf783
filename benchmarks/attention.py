"""Sparse attention on each backend against dense attention by torch, interleaved, on one thread: times faster, and the bars.

Forward and forward with backward at 80, 90 and 95 % sparsity of random blocks of 64 (2 heads of dimension 64), and a step of decoding
over 65,536 keys (8 heads of dimension 128, tokens chosen one by one). Checking and planning the index are inside every figure. Processor
time, median of 5 rounds after one that compiles.

Run: ``.venv/bin/python benchmarks/attention.py`` (about two minutes; ``--length 16384``, ``--flex`` adds torch's flex_attention, which
compiles for each shape for up to a minute). Bars, at 80 / 90 / 95 %: native >= 2.7 / 5.5 / 10, gather >= 1.8 / 3.5 / 7; forward with
backward at 90 % >= 2.5; decode at 90 % >= 3.5.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.nn.functional import scaled_dot_product_attention

from cloudchamber.attention import BlockIndex, Blocks, sparse_attention
from cloudchamber.attention.kernels import flex
from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.core.results import Table

BLOCK, HEADS, DIM = 64, 2, 64
KEYS, DECODE_HEADS, DECODE_DIM = 65536, 8, 128
SPARSITIES = (0.8, 0.9, 0.95)
BARS = {
    **dict(zip([("native", each, "forward") for each in SPARSITIES], (2.7, 5.5, 10.0), strict=True)),
    **dict(zip([("gather", each, "forward") for each in SPARSITIES], (1.8, 3.5, 7.0), strict=True)),
    ("native", 0.9, "both"): 2.5,
    ("gather", 0.9, "both"): 2.5,
    ("decode", 0.9, "decode"): 3.5,
}
ROUNDS = 5
Key = tuple[str, float, str]


def one_thread() -> None:
    """Torch's and numpy's products on one thread: others that wait in a loop would be counted as work."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def random_index(tokens: int, sparsity: float) -> BlockIndex:
    """For each head and query block the same number of key blocks, at random: nothing for a cache to profit from."""
    rng, blocks = np.random.default_rng(0), Blocks.uniform(tokens, BLOCK)
    keep = max(1, round(blocks.count * (1 - sparsity)))
    rank = np.argsort(rng.random((HEADS, blocks.count, blocks.count)), axis=-1)
    return BlockIndex.of(rank < keep, blocks, blocks)


def token_index(sparsity: float) -> BlockIndex:
    """Single keys at random, others for each head."""
    mask = np.random.default_rng(0).random((DECODE_HEADS, 1, KEYS)) >= sparsity
    return BlockIndex.of(mask, Blocks.uniform(1, 1), Blocks.uniform(KEYS, 1))


def forward_subjects(tokens: int, with_flex: bool) -> dict[Key, Callable[[], object]]:
    q, k, v = torch.randn(3, 1, HEADS, tokens, DIM).unbind()
    made: dict[Key, Callable[[], object]] = {("dense", 0.0, "forward"): lambda: scaled_dot_product_attention(q, k, v)}
    for sparsity in SPARSITIES:
        index = random_index(tokens, sparsity)
        for name in ("native", "gather"):
            made[name, sparsity, "forward"] = lambda index=index, name=name: sparse_attention(q, k, v, index, backend=name)  # type: ignore[misc]
        if with_flex:
            plan, flat = Plan.of(index), (q[0], k[0], v[0])
            made["flex", sparsity, "forward"] = lambda plan=plan, flat=flat: flex.attend(*flat, plan, DIM**-0.5)  # type: ignore[misc]
    return made


def both_subjects(tokens: int) -> dict[Key, Callable[[], object]]:
    q, k, v = (torch.randn(1, HEADS, tokens, DIM, requires_grad=True) for _ in range(3))
    d_out = torch.randn(1, HEADS, tokens, DIM)
    made: dict[Key, Callable[[], object]] = {("dense", 0.0, "both"): lambda: scaled_dot_product_attention(q, k, v).backward(d_out)}
    for sparsity in SPARSITIES:
        index = random_index(tokens, sparsity)
        for name in ("native", "gather"):
            made[name, sparsity, "both"] = lambda index=index, name=name: sparse_attention(q, k, v, index, backend=name)[0].backward(d_out)  # type: ignore[misc]
    return made


def decode_subjects() -> dict[Key, Callable[[], object]]:
    q, (k, v) = torch.randn(1, DECODE_HEADS, 1, DECODE_DIM), torch.randn(2, 1, DECODE_HEADS, KEYS, DECODE_DIM).unbind()
    made: dict[Key, Callable[[], object]] = {("dense", 0.0, "decode"): lambda: scaled_dot_product_attention(q, k, v)}
    for sparsity in SPARSITIES:
        index = token_index(sparsity)
        for name in ("decode", "gather"):
            made[name, sparsity, "decode"] = lambda index=index, name=name: sparse_attention(q, k, v, index, backend=name)  # type: ignore[misc]
    return made


def medians(subjects: Mapping[Key, Callable[[], object]]) -> dict[Key, float]:
    """Processor seconds of each; all take turns, so that what else the machine does falls on all."""
    seconds: dict[Key, list[float]] = {key: [] for key in subjects}
    for _ in range(ROUNDS + 1):
        for key, run in subjects.items():
            start = time.process_time()
            run()
            seconds[key].append(time.process_time() - start)
    return {key: statistics.median(found[1:]) for key, found in seconds.items()}


def rows(found: Mapping[Key, float]) -> list[tuple[str, ...]]:
    """One line for each: time, times faster than dense, and whether its bar holds."""
    lines = []
    for (name, sparsity, what), seconds in found.items():
        ratio = found["dense", 0.0, what] / seconds
        bar = BARS.get((name, sparsity, what))
        said = "" if bar is None else f">= {bar:g} {'holds' if ratio >= bar else 'MISSED'}"
        lines.append((what, name, f"{sparsity:.0%}", f"{seconds * 1e3:,.1f}", f"{ratio:.2f}", said))
    return lines


def main() -> None:
    """Print the three tables as one."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--length", type=int, default=8192, help="tokens (default: 8192, for which the bars are)")
    options.add_argument("--flex", action="store_true", help="time torch's flex_attention too")
    chosen = options.parse_args()
    one_thread()
    torch.manual_seed(0)
    lines = rows(medians(forward_subjects(chosen.length, chosen.flex)))
    lines += rows(medians(both_subjects(chosen.length)))
    lines += rows(medians(decode_subjects()))
    title = f"{chosen.length:,} tokens, {HEADS} heads of {DIM}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    print(title)
    print(Table(("what", "backend", "sparsity", "ms", "times faster", "bar"), tuple(lines)))


if __name__ == "__main__":
    main()
