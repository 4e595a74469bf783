"""Workloads: real traces in slices, generators, and the engine that serves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.datasets import locate
from cloudchamber.core.errors import InputError, unknown
from cloudchamber.core.study import Workload, rng_of, start_of

from .costmodel import load
from .data import FILES, Clients, read_trace, traces_dataset
from .model import CostModel, EngineSpec
from .traces import Trace, chats, gaps, lognormal, scale

PRESETS = Path(__file__).parent / "presets"
SERVEGEN = "servegen-"


@cache
def preset(name: str) -> tuple[CostModel, int]:
    """Return the approximate cost model of that name, and the tokens its KV pool holds.

    Raises
    ------
    UnknownName
        If there is none, and it is no path of a file as ``calibrate()`` writes it.
    """
    path = PRESETS / f"{name}.json"
    if not path.is_file():
        path = Path(name)
        if path.suffix != ".json":
            raise unknown("cost model", name, sorted(each.stem for each in PRESETS.glob("*.json")))
    cost = load(path)
    return cost, int(json.loads(path.read_text()).get("pool_tokens", 65_536))


@dataclass(frozen=True, kw_only=True)
class EngineWorkload(Workload):
    """Requests, and the engine in front of which they arrive.

    Parameters
    ----------
    source : str
        A public trace (``azure-code``, ``azure-conv``, ``mooncake-conversation``, ``mooncake-synthetic``; ``arxiv`` and ``servegen-MODEL``
        give lengths to drawn arrivals), a generator (``gamma``, ``chat``), or ``file``.
    file, sha256 : str
        A user's trace.
    n : int
        Requests of a trial; 0: all there are.
    rate : float
        Requests per second (conversations, for ``chat``); on a trace with arrival times a factor on its own rate.
    length : float
        Factor on the tokens of every request.
    cv : float
        Coefficient of variation of the gaps between drawn arrivals: 1 is Poisson.
    prompt, answer : tuple of float
        Mean, and standard deviation of the logarithm, of drawn lengths in tokens.
    turns, think_s : float
        Of drawn conversations.
    shared : int
        Tokens of the prompt with which every drawn request begins.
    urgent : float
        Share of requests with priority 0; the others have 1.
    low, high : float
        The part of a trace that is used.
    renaming : int or None
        Rename hashes and programs by this seed.
    cost : str
        Cost model: a preset, or a JSON file of ``calibrate()``.
    pool_tokens : int
        Tokens of KV; 0: the preset's.
    block_tokens : int
        Tokens of a block where the trace does not say.
    token_budget, max_running : int
        Of a step.
    """

    source: str
    file: str = ""
    sha256: str = ""
    n: int = 300
    rate: float = 1.0
    length: float = 1.0
    cv: float = 1.0
    prompt: tuple[float, float] = (1000.0, 1.0)
    answer: tuple[float, float] = (200.0, 0.8)
    turns: float = 4.0
    think_s: float = 10.0
    shared: int = 0
    urgent: float = 0.25
    low: float = 0.0
    high: float = 1.0
    renaming: int | None = None
    cost: str = "a100-8b"
    pool_tokens: int = 0
    block_tokens: int = 16
    token_budget: int = 2048
    max_running: int = 256

    @property
    def summary(self) -> str:
        """Its requests and its engine."""
        count = f"{self.n} requests" if self.n else "all requests"
        pace = f"{self.rate:g} times its rate" if self._has_times else f"{self.rate:g}/s"
        sizes = "" if self.length == 1 else f", {self.length:g} times the length"
        return f"{count} of {self.file or self.source}, {pace}{sizes}; cost model {self.cost}, {self.pool[0]} tokens of KV."

    @property
    def pool(self) -> tuple[int, CostModel]:
        """Tokens of KV, and the cost model."""
        cost, tokens = preset(self.cost)
        return self.pool_tokens or tokens, cost

    @property
    def _has_times(self) -> bool:
        return self.source == "file" or (self.source in FILES and self.source != "arxiv")

    @property
    def _is_listed(self) -> bool:
        return not self.is_generated and not self.source.startswith(SERVEGEN)

    def part(self, lo: float, hi: float) -> EngineWorkload | None:
        """The share of the trace between two times; None if it is shorter than one trial."""
        if not self._is_listed:
            return self
        low, high = self.low + lo * (self.high - self.low), self.low + hi * (self.high - self.low)
        begin, end = self._bounds(low, high, len(self._whole()))
        return replace(self, low=low, high=high) if end - begin >= max(1, self.n) else None

    def twin(self) -> EngineWorkload | None:
        """A generator with about its statistics; None for a user's file."""
        if self.is_generated:
            return self
        if self.source not in TWINS and not self.source.startswith(SERVEGEN):
            return None
        made = replace(self, is_generated=True, **TWINS.get(self.source, TWINS["servegen"]))
        own = TWINS.get(self.source, {}).get("rate")
        return replace(made, n=self.n or 1000, rate=own * self.rate if own is not None else self.rate, seeds=max(self.seeds, 2))

    def renamed(self, rng: np.random.Generator) -> EngineWorkload:
        """The same requests with other hashes and names of programs."""
        return replace(self, renaming=int(rng.integers(2**31)))

    def trace(self, seed: int) -> Trace:
        """Return the seed's requests: a slice of the trace, or drawn.

        Raises
        ------
        InputError
            If the trace has fewer requests than a trial.
        """
        rng = rng_of("engine.requests", self.name, seed)
        made = self._slice(seed, rng) if self._is_listed else self._drawn(rng)
        if self.length != 1.0 or (self.rate != 1.0 and self._has_times and not self.is_generated):
            made = scale(made, self.rate if self._has_times and not self.is_generated else 1.0, self.length)
        return made if self.renaming is None else made.renamed(rng_of("engine.renaming", str(self.renaming), seed))

    def priorities(self, seed: int) -> list[int]:
        """Return the seed's priorities: 0 for a drawn share of requests, 1 for the rest."""
        trace_len = len(self.trace(seed))
        return (rng_of("engine.priorities", self.name, seed).random(trace_len) >= self.urgent).astype(int).tolist()  # type: ignore[no-any-return]

    def spec(self, trace: Trace) -> EngineSpec:
        """Return the engine's static facts."""
        tokens, cost = self.pool
        block = trace.block_tokens if trace.blocks is not None else self.block_tokens
        return EngineSpec(block, max(1, tokens // block), self.token_budget, self.max_running, cost)

    def _whole(self) -> Trace:
        path = Path(self.file) if self.source == "file" else locate(traces_dataset()) / FILES[self.source]
        return read_trace(path, self.sha256)

    @staticmethod
    def _bounds(low: float, high: float, size: int) -> tuple[int, int]:
        return round(low * size), round(high * size)

    def _slice(self, seed: int, rng: np.random.Generator) -> Trace:
        whole = self._whole()
        begin, end = self._bounds(self.low, self.high, len(whole))
        n = self.n or end - begin
        if end - begin < n:
            raise InputError(f"workload {self.name!r} has {end - begin} requests, fewer than the {n} of a trial; set n to less.")
        first = begin + start_of(seed, end - begin - n + 1)
        found = whole.slice(first, first + n)
        return found if self._has_times else replace(found, arrival_s=gaps(n, self.rate, self.cv, rng))

    def _drawn(self, rng: np.random.Generator) -> Trace:
        if self.source.startswith(SERVEGEN):
            return Clients(locate(traces_dataset()), self.source.removeprefix(SERVEGEN)).draw(self.n, self.rate, rng)
        if self.source == "chat":
            return chats(
                self.n, self.rate, rng, turns=self.turns, think_s=self.think_s, shared=self.shared, prompt=self.prompt, answer=self.answer,
                block_tokens=self.block_tokens, cv=self.cv,
            )  # fmt: skip
        n_input = lognormal(self.n, *self.prompt, 32_768, rng) + self.shared
        blocks = [[*range(self.shared // self.block_tokens)]] * self.n if self.shared else None
        return Trace(gaps(self.n, self.rate, self.cv, rng), n_input, lognormal(self.n, *self.answer, 4096, rng), blocks, self.block_tokens)


TWINS: dict[str, dict[str, Any]] = {
    "azure-code": {"source": "gamma", "rate": 2.57, "cv": 13.0, "prompt": (2048.0, 1.0), "answer": (28.0, 0.81)},
    "azure-conv": {"source": "gamma", "rate": 5.53, "cv": 1.09, "prompt": (1155.0, 0.8), "answer": (211.0, 0.85)},
    "mooncake-conversation": {
        "source": "chat", "rate": 1.7, "cv": 3.0, "turns": 2.0, "think_s": 60.0, "shared": 512, "prompt": (7600.0, 1.0),
        "answer": (343.0, 0.9), "block_tokens": 512,
    },
    "mooncake-synthetic": {
        "source": "chat", "rate": 0.6, "cv": 1.0, "turns": 6.0, "think_s": 60.0, "shared": 512, "prompt": (4700.0, 1.3),
        "answer": (149.0, 1.2), "block_tokens": 512,
    },
    "arxiv": {"source": "gamma", "prompt": (2588.0, 0.6), "answer": (291.0, 0.8)},
    "servegen": {"source": "gamma", "cv": 2.0, "prompt": (500.0, 1.3), "answer": (150.0, 1.2)},
}  # fmt: skip


def named_workloads() -> Mapping[str, EngineWorkload]:
    """The workloads of the study, by name."""
    every = (
        EngineWorkload(name="azure-code", source="azure-code", seeds=6, rate=1.5),
        EngineWorkload(name="azure-conv", source="azure-conv", seeds=6, rate=1.0, max_running=64),
        EngineWorkload(name="mooncake", source="mooncake-conversation", seeds=6, rate=0.35, cost="h100-8b"),
        EngineWorkload(
            name="chat", source="chat", is_generated=True, seeds=6, rate=4.0, think_s=5.0, shared=512, prompt=(300.0, 1.0), max_running=32
        ),
        EngineWorkload(name="mooncake-synthetic", source="mooncake-synthetic", seeds=6, rate=0.4, cost="h100-8b", is_optional=True),
        EngineWorkload(name="mooncake-whole", source="mooncake-conversation", n=0, seeds=1, rate=0.3, cost="h100-8b", is_finite=True,
            is_optional=True),
        EngineWorkload(name="arxiv", source="arxiv", seeds=6, rate=4.0, is_optional=True),
        EngineWorkload(name="servegen-m-small", source="servegen-m-small", seeds=6, rate=12.0, is_optional=True),
        EngineWorkload(name="poisson", source="gamma", is_generated=True, seeds=6, rate=8.0, is_optional=True),
        EngineWorkload(name="bursty", source="gamma", is_generated=True, seeds=6, rate=6.0, cv=5.0, is_optional=True),
        EngineWorkload(name="system-prompt", source="gamma", is_generated=True, seeds=6, rate=12.0, shared=2048, is_optional=True),
        EngineWorkload(
            name="smoke", source="chat", is_generated=True, is_optional=True, seeds=2, n=24, rate=4.0, prompt=(200.0, 1.0),
            answer=(20.0, 0.8), shared=64, think_s=2.0, pool_tokens=4096, token_budget=512, max_running=16,
        ),
    )  # fmt: skip
    return {each.name: each for each in every}


_RANGES: dict[str, tuple[type, float, float]] = {
    "n": (int, 0, 10_000_000), "seeds": (int, 1, 100_000), "rate": (float, 1e-6, 1e6), "length": (float, 1e-3, 1e3),
    "cv": (float, 0, 20), "turns": (float, 1, 1e4), "think_s": (float, 0, 1e6), "shared": (int, 0, 30_000), "urgent": (float, 0, 1),
    "pool_tokens": (int, 0, 10**9), "block_tokens": (int, 1, 65_536), "token_budget": (int, 1, 10**6), "max_running": (int, 1, 10**5),
}  # fmt: skip
_PAIRS = ("prompt", "answer")


def adjusted(workload: Any, params: Mapping[str, Any]) -> Any:
    """Return the workload with parameters set by name (``--set key=value``); values may be text, a pair ``1000/0.8``.

    Raises
    ------
    InputError
        For an unknown key or a value of the wrong kind.
    """
    made: dict[str, Any] = {}
    for key, value in params.items():
        if key == "cost":
            preset(str(value))
            made[key] = str(value)
        elif key in _PAIRS:
            made[key] = _pair(key, value)
        elif key in _RANGES:
            made[key] = number_in(key, value, *_RANGES[key])
        else:
            raise InputError(f"no parameter {key!r} to set here; allowed: {', '.join([*_RANGES, *_PAIRS, 'cost'])}.")
    return replace(workload, **made)


def number_in(key: str, value: Any, kind: type, low: float, high: float) -> Any:
    """Return the number that a value or its text is.

    Raises
    ------
    InputError
        If it is none, or outside [low, high].
    """
    try:
        found = kind(value)
    except (TypeError, ValueError):
        found = np.nan
    if not low <= found <= high:
        raise InputError(f"{key} must be {'a whole number' if kind is int else 'a number'} from {low:g} to {high:g}, got {value!r}.")
    return found


def _pair(key: str, value: Any) -> tuple[float, float]:
    try:
        mean, sigma = (float(each) for each in (value.split("/") if isinstance(value, str) else value))
        if not (1 <= mean <= 30_000 and 0 <= sigma <= 4):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(f"{key} must be a mean in tokens and a spread of its logarithm, like 1000/0.8, got {value!r}.") from None
    return mean, sigma


def user_workload(path: Path, params: Mapping[str, Any]) -> EngineWorkload:
    """Return the workload of a user's trace, read once to check it.

    Raises
    ------
    InputError
        Saying what to fix.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    count = len(read_trace(path, digest))
    made = EngineWorkload(name=path.name.partition(".")[0], source="file", file=str(path), sha256=digest, n=min(300, count), seeds=6)
    return adjusted(made, params)  # type: ignore[no-any-return]
