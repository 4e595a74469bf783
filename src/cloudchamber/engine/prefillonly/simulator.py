"""The verified world of prefills: the engine with one request a step, several instances side by side, users kept together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cloudchamber.engine.clock import VirtualClock
from cloudchamber.engine.core import EngineCore
from cloudchamber.engine.costmodel import CostModelExecutor
from cloudchamber.engine.kv import PagedKV
from cloudchamber.engine.model import EngineSpec
from cloudchamber.engine.request import Request
from cloudchamber.engine.simulator import drive


def route(requests: Sequence[Request], instances: int) -> list[list[Request]]:
    """Return each instance's requests: a user (``program``) goes round robin on first sight, and stays, so that its prefix is there."""
    home: dict[str | int, int] = {}
    made: list[list[Request]] = [[] for _ in range(instances)]
    for r in sorted(requests, key=lambda r: (r.arrival, r.id)):
        made[home.setdefault(r.program or r.id, len(home) % instances)].append(r)
    return made


def serve(policy: Any, requests: Sequence[Request], spec: EngineSpec, rng: np.random.Generator) -> tuple[list[Request], EngineCore]:
    """Serve one instance's requests, one at a time, and return them in order of finish with the core that did."""
    policy.reset(spec, rng)
    core = EngineCore(
        PagedKV(spec.blocks, spec.block_tokens), policy, CostModelExecutor(spec.cost), VirtualClock(), spec,
        max_scored_len=max(r.n_input for r in requests),
    )  # fmt: skip
    return drive(core, requests), core
