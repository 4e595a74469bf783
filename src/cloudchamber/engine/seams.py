"""The engine's replaceable parts: what its core hands to an executor, a memory manager and a clock, and gets back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .model import Retain
from .request import Finish, Request

ReqId = int
ProgramId = str


@dataclass(frozen=True)
class KVGroup:
    """Layers that store the same bytes for every token: ``page_shape`` is (layers, 2, block, kv heads, head dimension)."""

    page_shape: tuple[int, ...]
    dtype: str = "float32"
    page_stride_bytes: int | None = None

    @property
    def page_bytes(self) -> int:
        """Bytes from one page to the next."""
        return self.page_stride_bytes or int(np.prod(self.page_shape)) * {"float32": 4}.get(self.dtype, 2)


@dataclass(frozen=True)
class KVLayout:
    """Bytes of the pool, and the groups that view it."""

    pool_bytes: int
    groups: tuple[KVGroup, ...]


@dataclass(frozen=True)
class PoolCounts:
    """Blocks by state; every block is in exactly one."""

    free: int
    cached: int
    used: int
    pinned: int

    @property
    def available(self) -> int:
        """Blocks that an allocation may take: free ones, and cached ones by eviction."""
        return self.free + self.cached


@dataclass(slots=True)
class Scheduled:
    """A request in a step: it computes ``n_new`` tokens from ``start`` on, and keeps the KV of its first ``kept``."""

    request: Request
    start: int
    n_new: int
    kept: int
    is_decode: bool

    @property
    def end(self) -> int:
        """Tokens computed after the step."""
        return self.start + self.n_new

    @property
    def samples(self) -> bool:
        """Whether the step reaches the last known token, so that the next one is drawn."""
        return self.start + self.n_new == self.request.n_tokens


@dataclass(slots=True)
class StepPlan:
    """What one step computes: decodes first, then chunks of prompts."""

    entries: list[Scheduled] = field(default_factory=list)

    def load(self) -> tuple[int, float, int, int]:
        """The cost model's regressors: prompt tokens, Σ new·context, decodes, Σ decode context."""
        new, attended, decodes, context = 0, 0.0, 0, 0
        for each in self.entries:
            if each.is_decode:
                decodes += 1
                context += each.end
            else:
                new += each.n_new
                attended += each.n_new * (each.start + 0.5 * each.n_new)
        return new, attended, decodes, context


@dataclass(slots=True)
class StepResult:
    """What a step brought: tokens drawn for each entry (none for an unfinished prompt), and how long it took in seconds.

    Parameters
    ----------
    tokens : list of list of int
        One list for each entry of the plan.
    duration_s : float
    details : list or None
        One item for each entry: what the frontend reports beside the tokens (log-probabilities).
    errors : dict of int to str
        Requests that failed alone, and why.
    kv_bytes : int
        Bytes of K and V that decode attention read.
    """

    tokens: list[list[int]]
    duration_s: float
    details: list[Any] | None = None
    errors: dict[int, str] = field(default_factory=dict)
    kv_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step brought to one request: new tokens, their details, and whether it is finished."""

    request: Request
    tokens: list[int]
    details: Any = None
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step, for calibration: prompt tokens, Σ new·context, decodes, Σ decode context; seconds in the executor, and outside it."""

    new: int
    attended: float
    decodes: int
    context: int
    duration_s: float
    overhead_s: float


class Executor(Protocol):
    """Computes steps: a torch model, or a cost model in virtual time. ``lookahead``: extra tokens that one decode may yield."""

    lookahead: int

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute one step."""
        ...

    def forget(self, request: Request) -> None:
        """A request has ended; drop what is kept for it."""


class Clock(Protocol):
    """Seconds since the engine's start."""

    def now(self) -> float:
        """The time."""
        ...

    def advance(self, seconds: float) -> None:
        """A step took so long; a real clock has noticed."""

    def wait(self, until: float) -> None:
        """There is nothing to do before then."""


class KVManager(Protocol):
    """Bookkeeping of KV blocks: tables, hashes, reference counts, pins. Holds no tensor."""

    layout: KVLayout
    block_tokens: int
    blocks: int

    def lookup(self, r: Request) -> int:
        """Leading tokens that are cached now in every group; at most all but the last."""
        ...

    def changed(self) -> set[ReqId]:
        """Requests whose ``lookup`` may have changed since this was asked last."""
        ...

    def allocate(self, r: Request, n_tokens: int) -> bool:
        """Give blocks for the first ``n_tokens``, all or nothing; the first time, set ``r.n_computed`` to the cached prefix found."""
        ...

    def commit(self, r: Request, n_computed: int) -> None:
        """Register the full blocks among the first ``n_computed`` tokens; all layers are written."""
        ...

    def truncate(self, r: Request, n_tokens: int) -> None:
        """Give back the blocks beyond ``n_tokens``: rejected drafts."""
        ...

    def free(self, r: Request, retain: Retain) -> None:
        """A request gives its blocks up; also ends the watch over a waiting one."""
        ...

    def unpin(self, program: ProgramId) -> None:
        """Leave a program's pinned blocks to the LRU."""
        ...

    def pinned_blocks(self, program: ProgramId) -> int:
        """Blocks of a program's pin; 0 without one."""
        ...

    def table(self, r: Request, group: int = 0) -> np.ndarray:
        """Page ids of a request, int32."""
        ...

    def counts(self) -> PoolCounts:
        """Blocks by state."""
        ...
