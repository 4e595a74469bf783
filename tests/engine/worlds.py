"""Engines, requests and checks for the tests of the engine."""

from __future__ import annotations

from collections import Counter

import numpy as np

from cloudchamber.core.registry import load_study
from cloudchamber.engine.clock import VirtualClock
from cloudchamber.engine.core import EngineCore
from cloudchamber.engine.costmodel import CostModelExecutor
from cloudchamber.engine.kv import PagedKV
from cloudchamber.engine.model import CostModel, EngineSpec
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.request import Request
from cloudchamber.engine.seams import StepResult
from cloudchamber.engine.simulator import drive

COST = CostModel(0.01, 1e-4, 1e-8, 1e-4, 1e-7)
POLICIES = {
    f"{name}.{policy}": make
    for name in ("engine", "engine.prefillonly")
    for policy, make in load_study(name).policies().items()
    if policy != "OracleMeanOrder"
}


class Stepping:
    """The cost model without fast-forward."""

    lookahead = 0

    def __init__(self, cost=COST):
        self._inner = CostModelExecutor(cost)

    def execute(self, plan) -> StepResult:
        return self._inner.execute(plan)

    def forget(self, request) -> None: ...


def engine(policy=None, *, blocks=64, block=4, budget=32, running=8, executor=None, kv=None, **options) -> EngineCore:
    spec = EngineSpec(block, blocks, budget, running, COST)
    policy = FCFS() if policy is None else policy
    policy.reset(spec, np.random.default_rng(0))
    return EngineCore(kv or PagedKV(blocks, block), policy, executor or CostModelExecutor(COST), VirtualClock(), spec, **options)


def simple(id, n_input=8, max_tokens=2, arrival=0.0, **more) -> Request:
    return Request(id, n_input, max_tokens, arrival, **more)


def prompt(id, tokens, max_tokens=1, **more) -> Request:
    return Request(id, len(tokens), max_tokens, tokens=list(tokens), **more)


def check_pool(kv: PagedKV) -> None:
    """Every block in exactly one state, and every count what it counts."""
    uses = Counter(block for table in kv._tables.values() for block in table)
    pins = Counter(block for blocks in kv._pins.values() for block in blocks)
    assert [uses[block] for block in range(kv.blocks)] == kv._uses
    assert [pins[block] for block in range(kv.blocks)] == kv._pin_uses
    used, pinned = set(uses), set(pins) - set(uses)
    states = [set(kv._free), set(kv._cached), used, pinned]
    assert sum(map(len, states)) == len(set.union(*states)) == kv.blocks and len(kv._free) == len(set(kv._free))
    counts = kv.counts()
    assert (counts.free, counts.cached, counts.used, counts.pinned) == tuple(map(len, states))
    assert {block: value for value, block in kv._block_of.items()} == {i: v for i, v in enumerate(kv._hash) if v is not None}
    assert all(kv._hash[block] is not None for block in states[1] | pinned) and all(kv._hash[block] is None for block in states[0])


def check_core(core: EngineCore, colliding=False) -> None:
    """The pool, and that every view says what a fresh look would."""
    kv = core.kv
    check_pool(kv)
    assert set(kv._tables) == {r.id for r in core.running}
    assert set(core.requests) == set(core._waiting) | {r.id for r in core.running}
    assert list(core._waiting) == list(core._views)
    for r in core._waiting.values():
        fresh = min(len(kv._match(r, kv._hashes(r, r.n_tokens))), (r.n_tokens - 1) // kv.block_tokens) * kv.block_tokens
        assert colliding or kv.lookup(r) == fresh
        assert core._seen(r) == core.request_view(r)


def check_drained(core: EngineCore) -> None:
    check_core(core)
    assert (
        not core.requests
        and not core.kv._tables
        and not core.kv._watch.found
        and not core.kv._watch._chains
        and not core.kv._watch._last
        and not core.kv._watch._next
    )
    assert core.kv.counts().used == 0


def served(core, requests, check=lambda core: None) -> list[Request]:
    step = core.step

    def watched(until=np.inf):
        made = step(until)
        check(core)
        return made

    core.step = watched
    return drive(core, requests)
