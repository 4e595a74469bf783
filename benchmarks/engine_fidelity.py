"""The simulator against the real engine: the same requests, the same policies, a cost model of this machine.

Prompts that share system prompts arrive at a small random Llama (one thread, float32); 200 are served, and simulated. The cost model is
fitted to every other step of the replay itself (``--fit beside``, the default) and judged on the rest: a machine that is shared changes its
speed by a tenth within minutes, and a tenth of speed is much of a wait in a queue. ``--fit before`` fits to other requests served just
before, as one would who predicts. The bars: step times predicted with a median error of at most 15 %, mean time to first token and
throughput within 20 %, policies in the same order.

The engine's clock here counts the processor seconds of this process and the waits for arrivals, so that what else runs on the machine is
no part of a step; ``--clock wall`` takes the wall's.

Run: ``.venv/bin/python benchmarks/engine_fidelity.py [--requests N] [--load X ...] [--rounds N] [--clock wall] [--fit before]
[--figure FILE.svg]`` (minutes). The figure shows the first token of every request, real against simulated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from figures import standalone

from cloudchamber.core.results import Table
from cloudchamber.core.svg import Scale, document, line, text
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


class ProcessorClock:
    """Seconds in which this process computed, and those it would have waited, which it does not."""

    def __init__(self) -> None:
        self._waited = -time.process_time()

    def now(self) -> float:
        """The time."""
        return time.process_time() + self._waited

    def advance(self, seconds: float) -> None:
        """The step has taken its time already."""

    def wait(self, until: float) -> None:
        """Pass over it."""
        self._waited += max(0.0, until - self.now())


class Watch:
    """Times steps on the engine's clock, from one to the next: what is outside the executor counts too, waiting does not."""

    def __init__(self, llm: LLM) -> None:
        self._core, self.records = llm.core, list[StepRecord]()
        self._idle = self._last = 0.0
        self._wait, llm.core.clock.wait = llm.core.clock.wait, self._waited  # type: ignore[method-assign]
        llm.core.on_step = self._stepped

    def _waited(self, until: float) -> None:
        before = self._core.clock.now()
        self._wait(until)
        self._idle += self._core.clock.now() - before

    def _stepped(self, record: StepRecord) -> None:
        now = self._core.clock.now() - self._idle
        if self._last:
            self.records.append(replace(record, duration_s=now - self._last, overhead_s=0.0))
        self._last = now

    def close(self) -> list[StepRecord]:
        """Look no more."""
        self._core.clock.wait = self._wait  # type: ignore[method-assign]
        self._core.on_step = None
        return self.records


def learned(llm: LLM, made: list[tuple[list[int], int]], rng: np.random.Generator, load: float) -> CostModel:
    """The cost model of other requests of the same kind, served before: ``calibrate()`` alone has not seen such mixtures of loads."""
    watch = Watch(llm)
    drive(llm.core, arrivals(llm, made, pace(llm.core.spec.cost, made, rng, load), "before"))
    llm.core.spec = msgspec.structs.replace(llm.core.spec, cost=fit(watch.close()))
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


def figure(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Seconds to the first token of each request, real (across) against simulated (up), a panel for each policy."""
    side, gap, top = 260.0, 50.0, 26.0
    most = max(float(each.max()) for pair in found.values() for each in pair) * 1.05
    parts = []
    for i, (name, (real, fake)) in enumerate(found.items()):
        left = 44 + i * (side + gap)
        x, y = Scale(0, most, left, left + side), Scale(0, most, top + side, top)
        parts += [text(left, 14, name, css="strong"), line(x(0), y(0), x(most), y(most))]
        for share in (0, 0.25, 0.5, 0.75, 1):
            at = share * most / 1.05
            parts += [text(x(at), top + side + 16, f"{at:.1f}", anchor="middle"), text(left - 6, y(at) + 4, f"{at:.1f}", anchor="end")]
        parts += [
            f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.2" fill="#0b7fab" fill-opacity="0.6"/>' for a, b in zip(real, fake, strict=True)
        ]
    parts.append(text(44, top + side + 36, "seconds to the first token: real (across), simulated (up)"))
    return document(44 + 3 * (side + gap), top + side + 44, parts, "first tokens, real against simulated")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--load", type=float, nargs="+", default=[0.8, 1.2, 1.6], help="well above 1 a queue grows")
    parser.add_argument("--rounds", type=int, default=1, help="each with requests of its own")
    parser.add_argument("--clock", choices=("processor", "wall"), default="processor")
    parser.add_argument("--fit", choices=("beside", "before"), default="beside")
    parser.add_argument("--figure", type=Path, help="draw the last load here")
    options = parser.parse_args()
    rows, errors, agreed, hits, drawn = [], [], [], [], {}
    with tempfile.TemporaryDirectory() as name:
        llm = LLM(tiny(Path(name) / "model", shape=SHAPE), threads=1, options=OPTIONS)
        llm.calibrate()
        if options.clock == "processor":
            llm.core.clock = ProcessorClock()
        for load in options.load:
            for number in range(options.rounds):
                rng = np.random.default_rng([1, number])
                made = prompts(options.requests, rng)
                at = pace(learned(llm, prompts(options.requests // 2, rng), rng, load), made, rng, load)
                found = []
                for policy, make in POLICIES.items():
                    if options.fit == "before":
                        learned(llm, prompts(options.requests // 2, rng), rng, load)
                    llm.core.policy = make()
                    llm.core.policy.reset(llm.core.spec, np.random.default_rng(0))
                    watch, start = Watch(llm), llm.core.clock.now()
                    requests = arrivals(llm, made, at, f"{policy}{load}{number}")
                    real, steps = drive(llm.core, requests), watch.close()
                    if options.fit == "beside":
                        llm.core.spec = msgspec.structs.replace(llm.core.spec, cost=fit(steps[::2]))
                        steps = steps[1::2]
                    virtual = simulated(llm, requests, make())
                    hits.append(sum(r.n_hit for r in virtual) / sum(r.n_hit for r in real))
                    drawn[policy] = tuple(
                        np.array([r.first_token_s - r.arrival for r in sorted(each, key=lambda r: r.id)]) for each in (real, virtual)
                    )
                    load_of = np.array([(r.new, r.attended, r.decodes, r.context) for r in steps])
                    took = np.array([r.duration_s for r in steps])
                    error = float(np.median(np.abs(llm.core.spec.cost.seconds(*load_of.T) / took - 1)))
                    found.append((policy, judged(real, start), judged(virtual, start)))
                    errors.append(error)
                    shown = (f"{x:.4g}" for pair in zip(*found[-1][1:], strict=True) for x in (*pair, pair[1] / pair[0]))
                    rows.append((f"{load:g}", policy, f"{error:.1%}", *shown))
                orders = [[each[0] for each in sorted(found, key=lambda each: each[i][1])] for i in (1, 2)]
                agreed.append(orders[0] == orders[1])
                print(f"load {load:g}: by latency {' < '.join(orders[0])}; simulated {' < '.join(orders[1])}", flush=True)
    if options.figure:
        options.figure.write_text(standalone(figure(drawn)))
    columns = ("load", "policy", "step error")
    columns += tuple(
        f"{what}{kind}" for what in ("mean TTFT (s)", "mean latency (s)", "tokens/s") for kind in ("", ", simulated", ", ratio")
    )
    print(Table(columns, tuple(rows)))
    within = [all(0.8 <= float(row[i]) <= 1.2 for i in (5, 11)) for row in rows]
    print(
        f"median error of a step's time: {np.median(errors):.1%} (bar 15 %); TTFT and throughput within 20 % in {sum(within)} of "
        f"{len(rows)} replays; policies in the same order of latency in {sum(agreed)} of {len(agreed)}; "
        f"prompt tokens found in the cache, simulated / real: {min(hits):.3f} to {max(hits):.3f}"
    )


if __name__ == "__main__":
    main()
