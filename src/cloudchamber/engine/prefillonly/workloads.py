"""Workloads of one-token requests: the paper's two, lengths and prefixes of real traces, and a handful for the exact optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.datasets import locate
from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of, start_of
from cloudchamber.engine.costmodel import load
from cloudchamber.engine.data import FILES, read_trace, traces_dataset
from cloudchamber.engine.model import CostModel, EngineSpec
from cloudchamber.engine.optimum import least_work_s
from cloudchamber.engine.traces import Trace, gaps
from cloudchamber.engine.workloads import number_in

from .memory import SHAPES, Mode

PRESETS = Path(__file__).parent / "presets"
MODES: dict[str, float] = {  # time against plain prefilling; the parallel ones are modelled, and kindly: what they lose is left out
    "plain": 1.0,
    "hybrid": 1.0,
    "chunked": 1.14,  # measured by the paper at 20,000 tokens
    "tensor": 0.5 / (1 - 0.2),  # two GPUs, a fifth of the time in communication
    "pipeline": 0.5 * 1.1,  # two GPUs, bubbles of a tenth
}
PACKED = 64  # short prompts in one step at most
HUGE = 1 << 40  # tokens of a cache without limit


@dataclass(frozen=True, kw_only=True)
class PrefillWorkload(Workload):
    """Requests for one token each, and the instances that serve them.

    Parameters
    ----------
    source : str
        ``post`` (users with a profile and many posts), ``credit`` (one long history each), ``arxiv``, ``mooncake-conversation``.
    users, per_user : int
        Users, and requests of each.
    gap_s : float
        Between two requests of a user.
    profile : tuple of float
        ``post``: mean, standard deviation, least and most tokens that a user's requests share; ``credit``: least and most tokens.
    own : int
        ``post``: tokens that each request has beside.
    n : int
        Requests taken from a trace.
    load : float
        Arrivals as a multiple of the throughput with everything queued at second 0 and every prefix computed once.
    cache_tokens : int
        KV that stays in memory, for each instance; 0: without limit.
    block_tokens : int
    instances : int
        Engines; a user stays on one.
    batch_below : int
        Prompts of fewer tokens share a step (not in the paper); 0: none does.
    mode : str
        ``hybrid``, ``plain``, ``chunked``; ``tensor`` and ``pipeline`` are models of two GPUs together.
    cost : str
        A preset of the cost model.
    renaming : int or None
        Rename hashes and users by this seed.
    """

    source: str = "post"
    users: int = 20
    per_user: int = 50
    gap_s: float = 0.05
    profile: tuple[float, ...] = (14_000.0, 3000.0, 11_000.0, 17_000.0)
    own: int = 150
    n: int = 500
    load: float = 2.0
    cache_tokens: int = 45_000
    block_tokens: int = 64
    instances: int = 1
    batch_below: int = 0
    mode: Mode = "hybrid"
    cost: str = "llama8b-a100"
    renaming: int | None = None

    @property
    def summary(self) -> str:
        """Its requests and its engines."""
        what = f"{self.n} requests of {self.source}" if self.source in FILES else f"{self.users} users x {self.per_user} requests"
        cache = f"{self.cache_tokens} tokens of cache" if self.cache_tokens else "unlimited cache"
        modelled = " (modelled)" if self.mode in ("tensor", "pipeline") else ""
        return f"{what} at {self.load:g} times the queued throughput; {self.instances} x {self.cost}, {self.mode}{modelled}, {cache}."

    @property
    def is_listed(self) -> bool:
        """Whether it reads a public trace."""
        return self.source in FILES and not self.is_generated

    def part(self, lo: float, hi: float) -> PrefillWorkload | None:
        """Itself: a slice is drawn for each seed."""
        return self if self.is_generated else None

    def twin(self) -> PrefillWorkload:
        """Post recommendation in place of a public trace."""
        return self if not self.is_listed else replace(self, source="post", users=self.n // 10, per_user=10, is_generated=True)

    def renamed(self, rng: np.random.Generator) -> PrefillWorkload:
        """The same requests with other hashes and users."""
        return replace(self, renaming=int(rng.integers(2**31)))

    def trace(self, seed: int) -> Trace:
        """Return the seed's requests."""
        rng = rng_of("engine.prefillonly.requests", self.name, seed)
        made = self._listed(seed, rng) if self.is_listed else self._credit(rng) if self.source == "credit" else self._post(rng)
        return made if self.renaming is None else made.renamed(rng_of("engine.prefillonly.renaming", str(self.renaming), seed))

    def spec(self, trace: Trace) -> EngineSpec:
        """Return one instance's static facts.

        Raises
        ------
        InputError
            If a prompt is longer than this mode can take in the GPU's memory.
        """
        longest, most = int(trace.n_input.max()), SHAPES[self.cost].longest(self.mode)
        if longest > most:
            raise InputError(
                f"workload {self.name!r} has a prompt of {longest} tokens; {self.mode} prefilling on {self.cost} takes at most {most}."
            )
        pool = self.cache_tokens or int(trace.n_input.sum()) + self.block_tokens * len(trace)
        blocks, running = max(1, pool // trace.block_tokens), PACKED if self.batch_below else 1
        return EngineSpec(trace.block_tokens, blocks, longest, running, self.seconds, batch_below=self.batch_below)

    @property
    def seconds(self) -> CostModel:
        """The cost model in this mode."""
        cost, factor = load(PRESETS / f"{self.cost}.json"), MODES[self.mode]
        return CostModel(*(getattr(cost, name) * factor for name in CostModel.__struct_fields__))

    def _rate(self, trace: Trace) -> float:
        """Requests per second at this load."""
        plain = replace(self, mode="plain").seconds  # the same arrivals whatever the mode
        spec = EngineSpec(trace.block_tokens, HUGE, HUGE, 1, plain)
        return self.load * self.instances * len(trace) / least_work_s(trace, spec)

    def _post(self, rng: np.random.Generator) -> Trace:
        mean, sd, least, most = self.profile
        shared = np.clip(np.rint(rng.normal(mean, sd, self.users)), least, most).astype(int)
        n_input = np.repeat(shared + self.own, self.per_user)
        users = np.repeat(np.arange(self.users), self.per_user)
        count, size = len(users), self.block_tokens
        profiles = [[user << 24 | i for i in range(int(tokens) // size)] for user, tokens in enumerate(shared)]
        blocks = [
            profiles[user] + [(1 << 50) + (request << 24) + i for i in range(len(profiles[user]), int(n) // size)]
            for request, (user, n) in enumerate(zip(users.tolist(), n_input, strict=True))
        ]
        names = [f"user{user}" for user in users]
        at_once = Trace(np.zeros(count), n_input, np.ones(count, np.int64), blocks, size, names)
        begins = gaps(self.users, self._rate(at_once) / self.per_user, 1.0, rng)
        at = (begins[:, None] + self.gap_s * np.arange(self.per_user)).ravel()
        order = np.argsort(at, kind="stable")
        return Trace(at[order], n_input[order], at_once.n_output, [blocks[i] for i in order], size, [names[i] for i in order])

    def _credit(self, rng: np.random.Generator) -> Trace:
        n_input = rng.integers(int(self.profile[0]), int(self.profile[1]), self.users, endpoint=True)
        size = self.block_tokens
        blocks = [[user << 24 | i for i in range(int(n) // size)] for user, n in enumerate(n_input)]
        ones = np.ones(self.users, np.int64)
        names = [f"user{user}" for user in range(self.users)]
        at_once = Trace(np.zeros(self.users), n_input, ones, blocks, size, names)
        return replace(at_once, arrival_s=gaps(self.users, self._rate(at_once), 1.0, rng))

    def _listed(self, seed: int, rng: np.random.Generator) -> Trace:
        whole = read_trace(locate(traces_dataset()) / FILES[self.source])
        found = whole.slice(first := start_of(seed, len(whole) - self.n + 1), first + self.n)
        found = replace(found, n_output=np.ones(self.n, np.int64))
        if found.blocks is None:
            found = replace(found, block_tokens=self.block_tokens)
        rate = self._rate(replace(found, arrival_s=np.zeros(self.n)))
        if self.source == "arxiv":
            return replace(found, arrival_s=gaps(self.n, rate, 1.0, rng))
        return replace(found, arrival_s=found.arrival_s * (self.n / rate / max(float(found.arrival_s[-1]), 1e-9)))


def named_workloads() -> Mapping[str, PrefillWorkload]:
    """The workloads of the study, by name."""
    post = PrefillWorkload(name="post", is_generated=True, seeds=6)
    credit = replace(post, name="credit", source="credit", cost="qwen32b-a100", users=60, per_user=1, profile=(40_000.0, 60_000.0))
    small = replace(
        post, name="tiny", users=4, per_user=2, profile=(1400.0, 300.0, 1100.0, 1700.0), own=50, cache_tokens=2000, seeds=12, gap_s=0.4,
        load=1.0,
    )  # fmt: skip
    every = (
        post,
        *(replace(post, name=f"post-{cost}", cost=cost, is_optional=True) for cost in ("llama8b-l4", "qwen32b-a100", "llama70b-h100")),
        *(replace(post, name=f"post-{load:g}x", load=load, is_optional=True) for load in (0.25, 0.5, 1.0, 4.0)),
        replace(post, name="post-at-once", gap_s=0.0, is_optional=True),
        replace(post, name="post-two", instances=2, users=40, is_optional=True),
        replace(post, name="post-chunked", mode="chunked", is_optional=True),
        replace(post, name="post-tensor", mode="tensor", is_optional=True),
        replace(post, name="post-pipeline", mode="pipeline", is_optional=True),
        credit,
        replace(credit, name="credit-tensor", mode="tensor", is_optional=True),
        PrefillWorkload(name="arxiv", source="arxiv", seeds=6, is_optional=True),
        PrefillWorkload(name="mooncake", source="mooncake-conversation", seeds=6, cost="llama8b-l4", cache_tokens=200_000),
        small,
        replace(small, name="smoke", seeds=2, is_optional=True),
    )
    return {each.name: each for each in every}


_RANGES: dict[str, tuple[type, float, float]] = {
    "seeds": (int, 1, 100_000), "users": (int, 1, 10_000), "per_user": (int, 1, 10_000), "gap_s": (float, 0, 1e6), "own": (int, 1, 10**6),
    "n": (int, 1, 10**6), "load": (float, 1e-3, 1e3), "cache_tokens": (int, 0, 10**9), "block_tokens": (int, 1, 65_536),
    "instances": (int, 1, 1000), "batch_below": (int, 0, 10**6),
}  # fmt: skip


def adjusted(workload: PrefillWorkload, params: Mapping[str, Any]) -> PrefillWorkload:
    """Return the workload with parameters set by name (``--set key=value``); values may be text.

    Raises
    ------
    InputError
        For an unknown key or a value of the wrong kind.
    """
    made: dict[str, Any] = {}
    choices = {"mode": tuple(MODES), "cost": tuple(SHAPES)}
    for key, value in params.items():
        if key in choices:
            if value not in choices[key]:
                raise InputError(f"{key} must be one of {', '.join(choices[key])}, got {value!r}.")
            made[key] = value
        elif key in _RANGES:
            made[key] = number_in(key, value, *_RANGES[key])
        else:
            raise InputError(f"no parameter {key!r} to set here; allowed: {', '.join([*_RANGES, *choices])}.")
    return replace(workload, **made)
