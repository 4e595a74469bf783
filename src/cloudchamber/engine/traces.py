"""Traces of LLM requests: when they came, how long they were, and which blocks of their prompts were the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .model import Upcoming
from .request import Request


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of arrival.

    Parameters
    ----------
    arrival_s : ndarray of float, shape (requests,)
    n_input, n_output : ndarray of int, shape (requests,)
        Tokens, at least 1.
    blocks : sequence of (sequence of int) or None
        For each request a hash for each full block of its prompt, and of its answer as far as that is known: equal leading hashes are
        equal prefixes. None: nothing is known to be shared.
    block_tokens : int
        Tokens of such a block.
    program : sequence of (str or None) or None
        The conversation that each request is a turn of.
    is_last : ndarray of bool or None
        Which requests end their conversation.
    """

    arrival_s: np.ndarray
    n_input: np.ndarray
    n_output: np.ndarray
    blocks: Sequence[Sequence[int]] | None = None
    block_tokens: int = 16
    program: Sequence[str | None] | None = None
    is_last: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    def slice(self, begin: int, end: int) -> Trace:
        """Return requests ``begin`` to ``end`` - 1, the first at second 0."""
        part = slice(begin, end)
        return replace(
            self,
            arrival_s=self.arrival_s[part] - (self.arrival_s[begin] if end > begin else 0.0),
            n_input=self.n_input[part],
            n_output=self.n_output[part],
            blocks=None if self.blocks is None else self.blocks[part],
            program=None if self.program is None else self.program[part],
            is_last=None if self.is_last is None else self.is_last[part],
        )

    def renamed(self, rng: np.random.Generator) -> Trace:
        """Return the same trace with other hashes and names of programs."""
        key = int(rng.integers(2**62))
        return replace(
            self,
            blocks=None if self.blocks is None else [[block ^ key for block in each] for each in self.blocks],
            program=None if self.program is None else [each and f"{key:x}-{each}" for each in self.program],
        )

    def requests(self, priorities: Sequence[int] | None = None) -> list[Request]:
        """Return new requests for a simulation; their ids are their places."""
        return [
            Request(
                i,
                int(self.n_input[i]),
                int(self.n_output[i]),
                float(self.arrival_s[i]),
                hashes=list(self.blocks[i]) if self.blocks is not None else [],
                program=self.program[i] if self.program is not None else None,
                is_last=bool(self.is_last[i]) if self.is_last is not None else False,
                priority=int(priorities[i]) if priorities is not None else 0,
            )
            for i in range(len(self))
        ]

    def future(self) -> tuple[Upcoming, ...]:
        """Return what a clairvoyant policy is told."""
        return tuple(Upcoming(r.id, r.arrival, r.n_input, r.max_tokens, tuple(r.hashes)) for r in self.requests())

    @property
    def hit_share(self) -> float:
        """Share of all prompt blocks that a cache without limit would hold, if the requests came one after the other."""
        if self.blocks is None:
            return 0.0
        known: set[int] = set()
        hits = blocks = 0
        for each, n_input in zip(self.blocks, self.n_input.tolist(), strict=True):
            prompt = each[: n_input // self.block_tokens]
            hits += bisect_left(prompt, True, key=lambda block: block not in known)
            blocks += len(prompt)
            known.update(each)
        return hits / max(1, blocks)


def scale(trace: Trace, rate: float = 1.0, length: float = 1.0) -> Trace:
    """Return a trace with ``rate`` times as many requests a second and ``length`` times as many tokens in each; the shape stays.

    Blocks shrink or grow with the lengths, so that what was shared still is.
    """
    block = max(1, round(trace.block_tokens * length)) if trace.blocks is not None else trace.block_tokens
    exact = block / trace.block_tokens if trace.blocks is not None else length
    return replace(
        trace,
        arrival_s=trace.arrival_s / rate,
        n_input=np.maximum(1, np.rint(trace.n_input * exact).astype(np.int64)),
        n_output=np.maximum(1, np.rint(trace.n_output * length).astype(np.int64)),
        block_tokens=block,
    )


def gaps(n: int, rate_per_s: float, cv: float, rng: np.random.Generator) -> np.ndarray:
    """Return ``n`` arrival times (s) of a renewal process with Gamma gaps: ``cv`` 1 is Poisson, more is burstier, 0 is a clock."""
    if cv == 0:
        return np.arange(n) / rate_per_s
    shape = 1 / cv**2
    return np.cumsum(rng.gamma(shape, 1 / (shape * rate_per_s), n))


def lognormal(n: int, mean: float, sigma: float, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``n`` lengths in tokens, at least 1: log-normal with the given mean and standard deviation of the logarithm."""
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return np.clip(np.rint(drawn), 1, most).astype(np.int64)


def chats(
    n: int, sessions_per_s: float, rng: np.random.Generator, *, turns: float, think_s: float, shared: int, prompt: tuple[float, float],
    answer: tuple[float, float], block_tokens: int = 16, most: int = 32_768, cv: float = 1.0,
) -> Trace:  # fmt: skip
    """Return ``n`` turns of conversations, whose prompts are all that was said before and one thing more.

    Turns come at fixed times, whether or not the last was answered, so that every policy meets the same arrivals.

    Parameters
    ----------
    sessions_per_s : float
        Conversations begun in a second.
    turns : float
        Mean number of turns (geometric).
    think_s : float
        Mean seconds between two turns (exponential).
    shared : int
        Tokens of the system prompt that all begin with.
    prompt, answer : tuple of float
        Mean, and standard deviation of the logarithm, of a user's words and of an answer in tokens.
    """
    begins = gaps(n, sessions_per_s, cv, rng)
    rows: list[tuple[float, int, int, int, int]] = []  # arrival, session, tokens, answer, turn
    count = rng.geometric(1 / turns, n)
    for session, begin in enumerate(begins.tolist()):
        said, at = shared, begin
        words = lognormal(int(count[session]), *prompt, most, rng)
        answers = lognormal(int(count[session]), *answer, most, rng)
        for turn, (asked, answered) in enumerate(zip(words.tolist(), answers.tolist(), strict=True)):
            said += asked
            if said + answered > most:
                break
            rows.append((at, session, said, answered, turn))
            said += answered
            at += float(rng.exponential(think_s))
    rows = sorted(rows)[:n]
    last = {session: turn for _, session, _, _, turn in rows}
    return Trace(
        np.array([row[0] for row in rows]),
        np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows]),
        [_chain(session, said + answered, shared, block_tokens) for _, session, said, answered, _ in rows],
        block_tokens,
        [f"chat{session}" for _, session, *_ in rows],
        np.array([last[session] == turn for _, session, _, _, turn in rows]),
    )


def _chain(owner: int, tokens: int, shared: int, block: int) -> list[int]:
    """Hashes of full blocks of which the first ``shared`` tokens are everybody's, the rest its owner's."""
    return [i if (i + 1) * block <= shared else (owner + 1 << 24) + i for i in range(tokens // block)]
