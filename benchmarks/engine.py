"""Speed of the engine, side by side with transformers and ctranslate2 at equal precision, in one run, each beside its bar.

Rounds are interleaved; ratios are of CPU-seconds (medians), one thread, greedy, random weights: 16 ragged requests at once, one alone,
a shared prefix, a long prompt among decodes, the scheduler's own time, int8 against float32.

Run: ``.venv/bin/python benchmarks/engine.py`` (``--quick``: two rounds).
"""

from __future__ import annotations

import math
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cloudchamber.core.results import Table
from cloudchamber.engine.checkpoints import Shape, demo, tiny
from cloudchamber.engine.clock import RealClock
from cloudchamber.engine.core import EngineCore
from cloudchamber.engine.kv import PagedKV
from cloudchamber.engine.llm import LLM, EngineOptions
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.request import Request
from cloudchamber.engine.sampling import SamplingParams
from cloudchamber.engine.seams import StepRecord

ROUNDS = 2 if "--quick" in sys.argv else 5
SHAPE = Shape(512, 1536, 8, 8, 4, 64, 8192, 4096)  # 29 M parameters, 33 M with the output projection counted apart
REQUESTS = 16
Rows = list[tuple[str, str, str, str]]


def interleaved(works: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Median CPU-seconds and wall seconds of each, taken in turn, after one round that is not counted."""
    cpu: dict[str, list[float]] = {name: [] for name in works}
    wall: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS + 1):
        for name, work in works.items():
            began, used = time.perf_counter(), time.process_time()
            work()
            cpu[name].append(time.process_time() - used)
            wall[name].append(time.perf_counter() - began)
    return {name: (statistics.median(cpu[name][1:]), statistics.median(wall[name][1:])) for name in works}


def ragged(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
    """Prompts of 16 to 128 tokens, answers of 8 to 96."""
    sizes = np.geomspace(16, 128, REQUESTS).astype(int)
    rng.shuffle(sizes)
    answers = np.geomspace(8, 96, REQUESTS).astype(int)
    rng.shuffle(answers)
    return [rng.integers(3, SHAPE.vocab_size, size=n).tolist() for n in sizes], answers.tolist()


def answer(llm: LLM, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in lengths]
    return [each.token_ids for each in llm.generate(prompts, params)]


class Transformers:
    """``generate``, one at a time or padded to one batch."""

    def __init__(self, folder: Path) -> None:
        import transformers

        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = 0

    def one(self, prompt: list[int], length: int) -> list[int]:
        """Answer alone."""
        with torch.inference_mode():
            found = self.model.generate(torch.tensor([prompt]), max_new_tokens=length, do_sample=False)
        return found[0, len(prompt) :].tolist()  # type: ignore[no-any-return]

    def padded(self, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
        """Answer all, until the longest answer is complete."""
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        with torch.inference_mode():
            found = self.model.generate(ids, attention_mask=mask, max_new_tokens=max(lengths), do_sample=False)
        return [row[longest : longest + n].tolist() for row, n in zip(found, lengths, strict=True)]


class CTranslate2:
    """Its batch, in which each sequence leaves at its own length."""

    def __init__(self, folder: Path, target: Path, compute_type: str) -> None:
        import ctranslate2
        from tokenizers import Tokenizer

        if not target.exists():
            ctranslate2.converters.TransformersConverter(str(folder)).convert(str(target))
        self.generator = ctranslate2.Generator(str(target), compute_type=compute_type, intra_threads=1, inter_threads=1)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def batch(self, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
        """All at once: what is longer than the shortest prompt is computed token by token, as this library does."""
        drawn = [0] * len(prompts)

        def is_done(step: Any) -> bool:
            drawn[step.batch_id] += 1
            return drawn[step.batch_id] >= lengths[step.batch_id]

        tokens = [[self.tokenizer.id_to_token(i) for i in each] for each in prompts]
        found = self.generator.generate_batch(
            tokens,
            max_length=max(lengths),
            min_length=max(lengths),
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token="<|im_start|>",
            callback=is_done,
        )
        return [each.sequences_ids[0] for each in found]

    def singly(self, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
        """One at a time: the whole prompt in one pass."""
        return [self.batch([prompt], [length])[0] for prompt, length in zip(prompts, lengths, strict=True)]


def throughput(folder: Path, scratch: Path, rows: Rows) -> None:
    prompts, lengths = ragged(np.random.default_rng(0))
    options = EngineOptions(prefix_cache=False, blocks=256)
    ours = {dtype: LLM(folder, dtype=dtype, threads=1, options=options) for dtype in ("float32", "int8")}
    print(ours["float32"].kernels, file=sys.stderr)
    peer = Transformers(folder)
    ct2 = {dtype: CTranslate2(folder, scratch / "ct2", dtype) for dtype in ("float32", "int8")}
    total = sum(lengths)
    counts = [len(each) for each in ct2["float32"].batch(prompts, lengths)]
    assert counts == lengths, counts
    timed = interleaved(
        {
            "ours float32": lambda: answer(ours["float32"], prompts, lengths),
            "transformers one at a time": lambda: [peer.one(p, n) for p, n in zip(prompts, lengths, strict=True)],
            "transformers padded batch": lambda: peer.padded(prompts, lengths),
            "ctranslate2 float32": lambda: ct2["float32"].batch(prompts, lengths),
            "ctranslate2 float32 one at a time": lambda: ct2["float32"].singly(prompts, lengths),
            "ours int8": lambda: answer(ours["int8"], prompts, lengths),
            "ctranslate2 int8": lambda: ct2["int8"].batch(prompts, lengths),
            "ctranslate2 int8 one at a time": lambda: ct2["int8"].singly(prompts, lengths),
        }
    )
    for against, mine, bar in (
        ("transformers one at a time", "ours float32", 2.2),
        ("transformers padded batch", "ours float32", 1.2),
        ("ctranslate2 float32", "ours float32", 1.2),
        ("ctranslate2 float32 one at a time", "ours float32", 1.2),
        ("ctranslate2 int8", "ours int8", 1.2),
        ("ctranslate2 int8 one at a time", "ours int8", 1.2),
        ("ours float32", "ours int8", 1.6),
    ):
        told = f"{total / timed[mine][0]:.0f} tokens per CPU-second ({total / timed[mine][1]:.0f} per s)"
        other = f"{against} {total / timed[against][0]:.0f} ({total / timed[against][1]:.0f})"
        rows.append((f"{mine}, {REQUESTS} ragged requests", told, other, f"{timed[against][0] / timed[mine][0]:.2f} (bar: >= {bar})"))
    single = interleaved({"ours": lambda: answer(ours["float32"], prompts[:1], [48]), "transformers": lambda: peer.one(prompts[0], 48)})
    ratio = single["ours"][0] / single["transformers"][0]
    rows.append(
        (
            "one request, 48 tokens",
            f"{single['ours'][0]:.2f} s",
            f"transformers {single['transformers'][0]:.2f} s",
            f"{ratio:.2f} (bar: <= 1.1)",
        )
    )


def prefix(folder: Path, rows: Rows) -> None:
    """16 requests that share 512 tokens, all added at once, with the prefix cache and without."""
    rng = np.random.default_rng(1)
    engines = {cached: LLM(folder, threads=1, options=EngineOptions(prefix_cache=cached, blocks=512)) for cached in (True, False)}
    computed: dict[bool, list[int]] = {True: [], False: []}
    ttft: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        shared = rng.integers(3, SHAPE.vocab_size, size=512).tolist()
        tails = [rng.integers(3, SHAPE.vocab_size, size=32).tolist() for _ in range(REQUESTS)]
        for cached, llm in engines.items():
            records: list[StepRecord] = []
            llm.core.on_step = records.append
            requests = [llm.request([*shared, *tail], SamplingParams(max_tokens=4, ignore_eos=True)) for tail in tails]
            for r in requests:
                r.arrival = llm.core.clock.now()
                llm.core.add(r)
            while llm.core.requests:
                llm.core.step()
            computed[cached].append(sum(each.new for each in records))
            ttft[cached].append(statistics.mean((r.first_token_s or math.nan) - r.arrival for r in requests))
    more, less = statistics.median(computed[False]), statistics.median(computed[True])
    rows.append(
        ("prefix of 512 shared by 16: prefill tokens", f"{less:.0f}", f"without cache {more:.0f}", f"{more / less:.1f} (bar: >= 3)")
    )
    slow, fast = statistics.median(ttft[False]), statistics.median(ttft[True])
    rows.append(("the same: mean time to first token", f"{fast:.2f} s", f"without {slow:.2f} s", f"{slow / fast:.1f} (bar: >= 2)"))


def chunking(folder: Path, rows: Rows) -> None:
    """Longest gap between two tokens of decoding requests while a prompt of 2,000 comes in: whole, or in chunks."""
    rng = np.random.default_rng(2)
    engines = {
        budget: LLM(folder, threads=1, options=EngineOptions(prefix_cache=False, blocks=256, token_budget=budget))
        for budget in (256, 512, 4096)
    }
    gaps: dict[int, list[float]] = {budget: [] for budget in engines}
    for _ in range(ROUNDS):
        for budget, llm in engines.items():
            decoding = [
                llm.request(rng.integers(3, 8192, size=16).tolist(), SamplingParams(max_tokens=24, ignore_eos=True)) for _ in range(4)
            ]
            for r in decoding:
                llm.core.add(r)
            for _ in range(4):
                llm.core.step()
            llm.core.add(llm.request(rng.integers(3, 8192, size=2000).tolist(), SamplingParams(max_tokens=1)))
            while llm.core.requests:
                llm.core.step()
            gaps[budget].append(max(r.max_gap_s for r in decoding))
    whole = statistics.median(gaps[4096])
    for budget, bar in ((256, " (bar: >= 3)"), (512, " (the default, no bar)")):
        cut = statistics.median(gaps[budget])
        rows.append(
            (
                "longest gap beside a prompt of 2,000",
                f"{cut * 1e3:.0f} ms in chunks of {budget}",
                f"whole {whole * 1e3:.0f} ms",
                f"{whole / cut:.1f}{bar}",
            )
        )


def scheduling(folder: Path, rows: Rows) -> None:
    """What a step at 32 sequences takes outside the executor, and the time of schedule() with 1,000 requests waiting."""
    rng = np.random.default_rng(3)
    llm = LLM(folder, dtype="int8", threads=1)  # the fastest steps: the hardest case
    records: list[StepRecord] = []
    for _ in range(32):
        llm.core.add(llm.request(rng.integers(3, 8192, size=16).tolist(), SamplingParams(max_tokens=40, ignore_eos=True)))
    llm.core.on_step = records.append
    while llm.core.requests:
        llm.core.step()
    full = [each for each in records if each.decodes == 32]
    share = sum(each.overhead_s for each in full) / sum(each.overhead_s + each.duration_s for each in full)
    rows.append(("outside the executor, 32 sequences, int8", f"{share:.1%} of step time", "", "(bar: < 10%)"))
    core = waiting_core(1000)
    times = []
    for _ in range(400):
        began = time.process_time()  # on a busy machine the wall clock measures the others
        plan = core.schedule()
        times.append(time.process_time() - began)
        core._apply(plan, core.executor.execute(plan))
    p99 = float(np.percentile(times, 99)) * 1e3
    rows.append(("p99 of schedule(), 1,000 waiting", f"{p99:.2f} ms", "", "(bar: < 2 ms)"))


def waiting_core(count: int) -> EngineCore:
    """A core with so many requests, an executor that takes no time, and room for 64."""
    from cloudchamber.engine.costmodel import CostModelExecutor
    from cloudchamber.engine.model import CostModel, EngineSpec

    cost = CostModel(0.01, 0.0, 0.0, 0.0, 0.0)
    spec, policy, rng = EngineSpec(16, 4096, 512, 64, cost), FCFS(), np.random.default_rng(4)
    policy.reset(spec, rng)
    core = EngineCore(PagedKV(4096, 16), policy, CostModelExecutor(cost), RealClock(), spec)
    for i in range(count + 64):
        tokens = rng.integers(1000, size=int(rng.integers(16, 400))).tolist()
        core.add(Request(i, len(tokens), int(rng.integers(8, 400)), tokens=tokens))
    return core


def perplexity(_: Path, rows: Rows) -> None:
    """Of int8 and float32 on the demo checkpoint, over source files that it was not trained on."""
    folder = demo()
    files = sorted(Path(sysconfig.get_path("stdlib"), "asyncio").glob("*.py"))[:12]
    found = {}
    for dtype in ("float32", "int8"):
        llm = LLM(folder, dtype=dtype, threads=1, options=EngineOptions(blocks=64, token_budget=1024))
        loss = []
        for file in files:
            tokens = llm.text.encode(file.read_text())[:1024]
            r = llm.request(tokens, SamplingParams(max_tokens=1))
            llm.core.add(r)
            plan = llm.core.schedule()
            with torch.inference_mode():
                x, _ = llm.core.executor._forward(plan.entries)
                rows_of = llm.model.logits(x)[:-1]
                loss.append(torch.nn.functional.cross_entropy(rows_of, torch.tensor(tokens[1:]), reduction="none"))
            llm.core.abort(r.id)
        found[dtype] = float(torch.cat(loss).mean().exp())
    ratio = found["int8"] / found["float32"]
    rows.append(("perplexity of int8", f"{found['int8']:.3f}", f"float32 {found['float32']:.3f}", f"{ratio:.4f} (bar: <= 1.02)"))


def main() -> None:
    """Print every figure."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny(Path(scratch) / "model", shape=SHAPE)
        for part in (scheduling, prefix, chunking, partial(throughput, scratch=Path(scratch)), perplexity):
            rows: Rows = []
            part(folder, rows=rows)
            print(Table(("what", "ours", "against", "ratio"), tuple(rows)), "\n", flush=True)


if __name__ == "__main__":
    main()
