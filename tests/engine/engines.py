"""Engines over one loaded model, with pools and budgets of any size."""

from __future__ import annotations

import numpy as np

from cloudchamber.engine.clock import RealClock
from cloudchamber.engine.core import EngineCore
from cloudchamber.engine.executor import TorchExecutor
from cloudchamber.engine.kv import PagedKV
from cloudchamber.engine.layers import Model
from cloudchamber.engine.loading import read_config, read_tensors
from cloudchamber.engine.model import CostModel, EngineSpec
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.request import Request


def load(folder) -> Model:
    config = read_config(folder)
    return Model(config, read_tensors(folder, config))


def engine(model, *, blocks=64, block_tokens=4, token_budget=64, max_running=16, prefix_cache=True, policy=None, **executing) -> EngineCore:
    executor = TorchExecutor(model, **executing)
    kv = PagedKV(blocks, block_tokens, executor.layout(blocks, block_tokens), prefix_cache)
    executor.attach(kv)
    policy = policy or FCFS()
    spec = EngineSpec(block_tokens, blocks, token_budget, max_running, CostModel(0.001, 0.0, 0.0, 0.0, 0.0))
    policy.reset(spec, np.random.default_rng(0))
    return EngineCore(kv, policy, executor, RealClock(), spec)


def request(i, prompt, max_tokens, sampling=None, **more) -> Request:
    return Request(i, len(prompt), max_tokens, tokens=list(prompt), sampling=sampling, **more)


def answer(core: EngineCore, requests: list[Request]) -> list[list[int]]:
    for r in requests:
        core.add(r)
    while core.requests:
        core.step()
    return [r.tokens[r.n_input :] for r in requests]
