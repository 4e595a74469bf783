"""The nouns of LLM serving: what a scheduler sees, and what it may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import AnyFloat, Message


class CostModel(Message, frozen=True):
    """How long a step takes, in seconds: a + b·new + c·Σ new·context + d·decodes + e·Σ decode context.

    Parameters
    ----------
    step_s : float
        a, what every step costs.
    token_s : float
        b, for each prompt token computed.
    attend_s : float
        c, for each prompt token computed and each token it attends to.
    decode_s : float
        d, for each sequence that decodes one token.
    read_s : float
        e, for each token of context that a decode reads.
    """

    step_s: float
    token_s: float
    attend_s: float
    decode_s: float
    read_s: float

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name} of a cost model must be a finite number of at least 0, got {value!r}.")

    def seconds(self, new: float, attended: float, decodes: float, context: Any) -> Any:
        """Duration of a step: prompt tokens, Σ new·context, decoding sequences, Σ decode context. Works on arrays too."""
        return self.step_s + self.token_s * new + self.attend_s * attended + self.decode_s * decodes + self.read_s * context


class Upcoming(Message, frozen=True):
    """A request that will come: when, how long, how many tokens it asks for, and the hashes of its full blocks."""

    id: int
    arrival: float
    n_input: int
    max_tokens: int
    hashes: tuple[int, ...] = ()


class EngineSpec(Message, frozen=True):
    """What a scheduler knows before the first request.

    Parameters
    ----------
    block_tokens : int
        Tokens of one KV block.
    blocks : int
        Blocks of the pool.
    token_budget : int
        Most tokens computed in one step.
    max_running : int
        Most sequences in one step.
    cost : CostModel
        How long a step takes, as far as is known.
    future : tuple of Upcoming or None
        Every request of the trial, for clairvoyant policies only.
    batch_below : int
        Prompts of at least so many tokens run alone; 0: none does.
    """

    block_tokens: int
    blocks: int
    token_budget: int
    max_running: int
    cost: CostModel
    future: tuple[Upcoming, ...] | None = None
    batch_below: int = 0


class View(Message, frozen=True):
    """The engine as a scheduler sees it: seconds since its start, blocks of the pool by state, and how many requests wait and run."""

    now: float
    free: int
    cached: int
    used: int
    pinned: int
    waiting: int
    running: int


class ReqView(Message, frozen=True):
    """A request as a scheduler sees it.

    Parameters
    ----------
    id : int
    program : str or None
        The agent program or conversation that it is a turn of.
    program_arrival, arrival : float
        Seconds; a request without a program is its own.
    n_input, n_computed, n_cached_now, n_output : int
        Tokens of the prompt; computed so far; leading tokens that the prefix cache holds now; generated so far.
    priority : int
        Lower goes first.
    deadline : float or None
        Second at which it should be finished.
    tool : str or None
        The tool that its program will call next, if known.
    is_last : bool
        Whether the client said that its program ends with it.
    is_preempted, is_aborted : bool
    is_pinned : bool
        Whether its program holds a live pin; in ``on_admit``: held one until now.
    """

    id: int
    program: str | None
    program_arrival: float
    arrival: float
    n_input: int
    n_computed: int
    n_cached_now: int
    n_output: int
    priority: int = 0
    deadline: float | None = None
    tool: str | None = None
    is_last: bool = False
    is_preempted: bool = False
    is_aborted: bool = False
    is_pinned: bool = False

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return self.n_input + self.n_output


class PinView(Message, frozen=True):
    """KV kept for a program between two turns: whose, since when the program is known, until when, and how many blocks."""

    program: str
    program_arrival: float
    expiry: AnyFloat
    blocks: int


class Retain(Message, frozen=True):
    """What becomes of a finished request's KV: ``free`` forgets it, ``cached`` leaves it to the LRU, ``pin`` keeps it ``ttl_s`` seconds."""

    kind: Literal["free", "cached", "pin"] = "cached"
    ttl_s: AnyFloat = 0.0


FREE, CACHED = Retain("free"), Retain("cached")


def pin(ttl_s: float) -> Retain:
    """Keep the KV for so many seconds, for the program's next turn."""
    return Retain("pin", ttl_s)


class SchedulerPolicy(Protocol):
    """Decides what an LLM server computes next, and what it keeps. Derive from it (and from ``Policy``): every verb has a default."""

    def reset(self, spec: EngineSpec, rng: np.random.Generator) -> None:
        """Forget everything and learn the engine's static facts."""

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """Return the ids of all waiting requests, the first to be admitted first. Default: preempted ones, then by arrival."""
        return [r.id for r in sorted(waiting, key=lambda r: (not r.is_preempted, r.arrival, r.id))]

    def victim(self, view: View, running: Sequence[ReqView]) -> int | None:
        """Return who gives its blocks up and starts again; ``running`` is in order of admission. None, the default: the last admitted."""
        return None

    def chunk(self, view: View, r: ReqView, budget: int) -> int:
        """Return how many prompt tokens to compute in this step, at most ``budget``. Default: all that fit; 0 passes this step."""
        return budget

    def keep(self, view: View, r: ReqView) -> int:
        """Return how many leading tokens' KV stays when the answer is one token. Default: all."""
        return r.n_tokens

    def on_arrive(self, view: View, r: ReqView) -> None:
        """A request came in."""
        return

    def on_admit(self, view: View, r: ReqView) -> None:
        """A request starts to run, for the first time or after a preemption."""
        return

    def on_finish(self, view: View, r: ReqView) -> Retain:
        """A request ended or was aborted: say what becomes of its KV. Default: it stays in the prefix cache."""
        return CACHED

    def release(self, view: View, pins: Sequence[PinView]) -> str | None:
        """Return the program whose pin yields, when a request does not fit. None, the default: the pin that expires last."""
        return None
