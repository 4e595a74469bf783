"""Prompts that one token answers: memory, longest prompt and time of hybrid prefilling beside plain and chunked, and transformers.

A random Llama of 12 layers (MLP four times the hidden size), float32, one thread. Memory is what torch's allocator reports: activations at
the peak, and the KV that each way needs to hold. Times are medians of interleaved runs.

Run: ``.venv/bin/python benchmarks/prefillonly.py [--repeats N]`` (minutes).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from cloudchamber.core.results import Table
from cloudchamber.engine.checkpoints import Shape, tiny
from cloudchamber.engine.executor import TorchExecutor
from cloudchamber.engine.llm import LLM, EngineOptions
from cloudchamber.engine.prefillonly import CalibratedSJF, KeepNone
from cloudchamber.engine.prefillonly.executor import HybridExecutor

SHAPE = Shape(intermediate_size=1024, num_hidden_layers=12, max_position_embeddings=16384)
LENGTHS = (1024, 2048, 4096, 8192)
BUDGET_BYTES = 256 * 2**20
CHUNK = 512


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes that ``work`` held at once beyond what there was."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = sorted(
        (each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"), key=lambda each: each.start_ns()
    )
    return int(np.cumsum([each.nbytes() for each in events]).max())


def engines(folder: Path) -> dict[str, LLM]:
    """The three ways to compute a prompt."""
    longest = LENGTHS[-1] + 64

    def made(budget: int, executor: Callable[..., TorchExecutor] = TorchExecutor, policy: object = None) -> LLM:
        options = EngineOptions(blocks=-(-longest // 64), token_budget=budget, max_running=1, prefix_cache=False, max_model_len=longest)
        return LLM(folder, threads=1, executor=executor, policy=policy, options=options)

    return {
        "plain": made(longest),
        f"chunked ({CHUNK})": made(CHUNK),
        "hybrid": made(longest, HybridExecutor, CalibratedSJF(prefix_keep=KeepNone())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = tiny(Path(name) / "model", shape=SHAPE)
        ways = engines(folder)
        prompts = {length: rng.integers(SHAPE.vocab_size, size=length).tolist() for length in LENGTHS}
        kv_bytes = ways["plain"].core.kv.layout.groups[0].page_bytes // 64
        memory = {way: [peak_bytes(partial(llm.score, [prompts[n]], [1, 2])) for n in LENGTHS] for way, llm in ways.items()}
        rows = []
        for way, used in memory.items():
            held = 0 if way == "hybrid" else kv_bytes
            slope, start = np.polyfit(LENGTHS, np.array(used) + held * np.array(LENGTHS), 1)
            rows.append((way, used[-1], int((BUDGET_BYTES - start) / slope)))
        plain, chunked, hybrid = rows
        print(
            Table(
                ("way", "activations at 8,192 tokens (MiB)", "of plain", f"longest prompt in {BUDGET_BYTES >> 20} MiB", "of plain"),
                tuple((w, f"{b / 2**20:.1f}", f"{b / plain[1]:.2f}", str(n), f"{n / plain[2]:.2f}") for w, b, n in rows),
            )
        )
        print(
            f"bars: activations of hybrid {hybrid[1] / plain[1]:.2f} of plain (0.35); longest {hybrid[2] / plain[2]:.1f} x plain (3), "
            f"{hybrid[2] / chunked[2]:.1f} x chunked (1.8)\n"
        )
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        peer = AutoModelForCausalLM.from_pretrained(folder).eval()

        def forward(n: int) -> None:
            with torch.inference_mode():
                peer(torch.tensor([prompts[n]]), use_cache=False, logits_to_keep=1).logits[0, -1, [1, 2]].softmax(0)

        timed: list[tuple[str, ...]] = []
        for n in LENGTHS:
            runs: dict[str, list[float]] = {}
            for _ in range(repeats):
                for way, work in [
                    *((way, partial(llm.score, [prompts[n]], [1, 2])) for way, llm in ways.items()),
                    ("transformers", partial(forward, n)),
                ]:
                    began = time.process_time()
                    work()
                    runs.setdefault(way, []).append(time.process_time() - began)
            base = runs["plain"]
            timed += [
                (str(n), way, f"{median(t):.3f}", f"{median(a / b for a, b in zip(t, base, strict=True)):.2f}") for way, t in runs.items()
            ]
        print(Table(("tokens", "way", "CPU s", "of plain"), tuple(timed)))
        print("bar: hybrid at most 1.05 of plain")


if __name__ == "__main__":
    main()
