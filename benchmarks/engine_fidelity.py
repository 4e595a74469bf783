"""The simulator against the real engine: the same requests, the same policies, a cost model of this machine.

Prompts that share system prompts arrive at a small random Llama (one thread, float32). The cost model is fitted to other requests of the
same kind; then 200 are simulated, and served. The bars: step times predicted with a median error of at most 15 %, mean time to first token
and throughput within 20 %, policies in the same order.

Run: ``.venv/bin/python benchmarks/engine_fidelity.py [--requests N] [--load X]`` (a few minutes).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from cloudchamber.core.results import Table
from cloudchamber.engine.checkpoints import Shape, tiny
from cloudchamber.engine.clock import VirtualClock
from cloudchamber.engine.core import EngineCore
from cloudchamber.engine.costmodel import CostModelExecutor, fit
from cloudchamber.engine.kv import PagedKV
from cloudchamber.engine.llm import LLM, EngineOptions
from cloudchamber.engine.model import CostModel
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.policies.longest_prefix_match import LongestPrefixMatch
from cloudchamber.engine.policies.shortest_prompt import ShortestPrompt
from cloudchamber.engine.request import Request
from cloudchamber.engine.sampling import SamplingParams
from cloudchamber.engine.seams import StepRecord
from cloudchamber.engine.simulator import drive

SHAPE = Shape(hidden_size=384, intermediate_size=1152, num_hidden_layers=8, num_attention_heads=6, num_key_value_heads=2, head_dim=64)
OPTIONS = EngineOptions(blocks=120, block_tokens=32, token_budget=256, max_running=8, max_model_len=1024)
POLICIES = {each.__name__: each for each in (FCFS, ShortestPrompt, LongestPrefixMatch)}


def prompts(n: int, rng: np.random.Generator) -> list[tuple[list[int], int]]:
    """Prompts that share one of six system prompts, and the lengths of their answers."""
    shared = [rng.integers(SHAPE.vocab_size, size=int(size)).tolist() for size in rng.integers(96, 320, 6)]
    found = []
    for _ in range(n):
        own = rng.integers(SHAPE.vocab_size, size=int(np.clip(rng.lognormal(3.8, 0.9), 8, 400))).tolist()
        found.append((shared[rng.integers(6)] + own, int(np.clip(rng.lognormal(2.8, 0.6), 4, 64))))
    return found


def arrivals(llm: LLM, made: list[tuple[list[int], int]], at: np.ndarray, salt: str) -> list[Request]:
    """Real requests that begin to arrive now."""
    found = []
    for (tokens, answer), when in zip(made, at, strict=True):
        r = llm.request(tokens, SamplingParams(answer, ignore_eos=True), salt=salt)
        r.arrival = llm.core.clock.now() + float(when)
        found.append(r)
    return found


def learned(llm: LLM, made: list[tuple[list[int], int]], rng: np.random.Generator, load: float) -> CostModel:
    """The cost model of other requests of the same kind, served before: ``calibrate()`` alone has not seen such mixtures of loads."""
    records: list[StepRecord] = []
    llm.core.on_step = records.append
    drive(llm.core, arrivals(llm, made, pace(llm.core.spec.cost, made, rng, load), "before"))
    llm.core.spec = msgspec.structs.replace(llm.core.spec, cost=fit(records))
    return llm.core.spec.cost


def pace(cost: CostModel, made: list[tuple[list[int], int]], rng: np.random.Generator, load: float) -> np.ndarray:
    """Poisson arrivals of so many times the work that a rough sum says the engine can do."""
    work = sum(cost.token_s * len(tokens) * 0.5 + cost.decode_s * answer + cost.step_s * answer / 4 for tokens, answer in made)
    return np.cumsum(rng.exponential(work / len(made) / load, len(made)))


def simulated(llm: LLM, made: list[Request], policy: object) -> list[Request]:
    """The same requests in virtual time, known by their hashes alone."""
    spec, size = llm.core.spec, llm.core.kv.block_tokens
    policy.reset(spec, np.random.default_rng(0))  # type: ignore[attr-defined]
    core = EngineCore(
        PagedKV(spec.blocks, size), policy, CostModelExecutor(spec.cost), VirtualClock(), spec, max_model_len=llm.core.max_model_len
    )
    kv = PagedKV(1, size)
    return drive(core, [Request(r.id, r.n_input, r.max_tokens, r.arrival, hashes=list(kv._hashes(r, r.n_input))) for r in made])


def judged(found: list[Request], start: float) -> tuple[float, float, float]:
    """Mean seconds to the first token, mean seconds to the last, tokens per second."""
    first = np.mean([r.first_token_s - r.arrival for r in found])  # type: ignore[operator]
    whole = np.mean([r.finish_s - r.arrival for r in found])  # type: ignore[operator]
    spent = max(r.finish_s for r in found) - start  # type: ignore[type-var, operator]
    return float(first), float(whole), sum(r.n_output for r in found) / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--load", type=float, default=0.8, help="above 1 a queue grows, and a few percent of speed are a third of a wait")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    rows, errors = [], []
    with tempfile.TemporaryDirectory() as name:
        llm = LLM(tiny(Path(name) / "model", shape=SHAPE), threads=1, options=OPTIONS)
        llm.calibrate()
        made = prompts(options.requests, rng)
        at = pace(learned(llm, prompts(options.requests // 2, rng), rng, options.load), made, rng, options.load)
        for policy, make in POLICIES.items():
            cost = learned(llm, prompts(options.requests // 2, rng), rng, options.load)  # anew: a shared machine's speed drifts
            llm.core.policy = make()
            llm.core.policy.reset(llm.core.spec, np.random.default_rng(0))
            records: list[StepRecord] = []
            llm.core.on_step = records.append
            start = llm.core.clock.now()
            requests = arrivals(llm, made, at, policy)
            virtual, real = simulated(llm, requests, make()), drive(llm.core, requests)
            steps = np.array([(r.new, r.attended, r.decodes, r.context, r.duration_s + r.overhead_s) for r in records])
            errors.append(np.abs(cost.seconds(*steps.T[:4]) / steps[:, 4] - 1))
            rows.append((policy, judged(real, start), judged(virtual, start)))
    error = float(np.median(np.concatenate(errors)))
    columns = ("policy", "mean TTFT (s)", "simulated", "ratio", "mean latency (s)", "simulated", "ratio", "tokens/s", "simulated", "ratio")
    shown = [(p, *(f"{x:.4g}" for real, fake in zip(r, v, strict=True) for x in (real, fake, fake / real))) for p, r, v in rows]
    print(Table(columns, tuple(shown)))
    real, virtual = (" < ".join(p for p, *_ in sorted(rows, key=lambda row: row[i][1])) for i in (1, 2))
    print(f"median error of a step's time: {error:.1%} (bar 15 %); order by latency, real: {real}; simulated: {virtual}")


if __name__ == "__main__":
    main()
