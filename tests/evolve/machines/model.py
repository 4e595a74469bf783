"""A toy problem: send each task to one of three machines."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cloudchamber.core.messages import Message


class Shop(Message, frozen=True):
    machines: int


class Job(Message, frozen=True):
    seconds: tuple[float, ...]


class Choice(Message, frozen=True):
    machine: int
    expected_s: float = 0.0


class ToyPolicy(Protocol):
    def reset(self, spec: Shop, rng: np.random.Generator) -> None: ...

    def choose(self, job: Job) -> Choice: ...
