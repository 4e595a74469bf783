"""A request as the engine keeps it: tokens, progress, and the times it is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cloudchamber.core.errors import InputError

Finish = Literal["stop", "length", "abort", "error"]


@dataclass(slots=True, eq=False)
class Request:
    """One completion.

    Parameters
    ----------
    id : int
    n_input : int
        Tokens of the prompt.
    max_tokens : int
        Tokens to generate at most.
    arrival : float
        Seconds since the engine's start.
    tokens : list of int or None
        The prompt, to which the engine appends; None for a simulated request, which has no tokens, only their number.
    hashes : list of int
        Chained hashes of full blocks, computed from tokens as they come; given with a simulated request (it may know those of its answer).
    salt : str
        Prefixes are shared among equal salts only.
    sampling : object
        What the executor needs to draw tokens; the core does not look at it.
    """

    id: int
    n_input: int
    max_tokens: int
    arrival: float = 0.0
    tokens: list[int] | None = None
    hashes: list[int] = field(default_factory=list)
    salt: str = ""
    stop_ids: frozenset[int] = frozenset()
    sampling: Any = None
    program: str | None = None
    priority: int = 0
    deadline: float | None = None
    tool: str | None = None
    is_last: bool = False

    program_arrival: float = 0.0
    n_computed: int = 0
    n_output: int = 0
    n_hit: int = 0  # tokens that the prefix cache spared at the first admission: others had brought them
    n_preempted: int = 0
    was_preempted: bool = False  # and not been admitted again since
    prompt_logprobs: list[Any] = field(default_factory=list)  # not empty: the executor adds to it
    kept: int | None = None  # leading tokens whose KV stays; None: all
    finish: Finish | None = None
    error: str = ""
    admitted_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float = 0.0
    finish_s: float | None = None
    max_gap_s: float = 0.0  # longest time between two tokens of the answer

    def __post_init__(self) -> None:
        if self.tokens is not None and len(self.tokens) != self.n_input:
            raise InputError(f"n_input is {self.n_input}, but there are {len(self.tokens)} tokens.")
        if self.n_input < 1 or self.max_tokens < 1:
            raise InputError(
                f"a request needs at least one prompt token and max_tokens of at least 1, got {self.n_input} and {self.max_tokens}."
            )

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return self.n_input + self.n_output

    @property
    def is_decode(self) -> bool:
        """Whether only the token it drew last is not yet computed."""
        return self.n_output > 0 and self.n_tokens - self.n_computed == 1
