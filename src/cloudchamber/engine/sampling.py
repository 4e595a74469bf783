"""How a token is drawn: what a client may ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cloudchamber.core.errors import InputError


@dataclass(frozen=True)
class SamplingParams:
    """What a client asks of the tokens drawn for it.

    Parameters
    ----------
    max_tokens : int, default 16
    temperature : float, default 0.0
        0 takes the likeliest token.
    top_p : float, default 1.0
        Draw from the likeliest tokens that together have this probability.
    top_k : int, default 0
        Draw from so many likeliest tokens; 0: from all.
    seed : int or None, default None
        Draws depend on it and on the token's place alone, never on who else is in the batch.
    stop : tuple of str
        Texts that end the answer and are not part of it.
    stop_ids : tuple of int
        Tokens that end it, beside the model's own.
    ignore_eos : bool, default False
    logprobs : int or None, default None
        Report the log-probability of each token drawn, and so many of the likeliest.
    allowed_token_ids : tuple of int
        Draw from these alone; empty: from all.
    prompt_logprobs : int or None, default None
        Report the log-probability of each token of the prompt, and so many of the likeliest; that of the first, which follows nothing,
        is NaN. No cached prefix is used.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    max_tokens: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    allowed_token_ids: tuple[int, ...] = ()
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        self._check("max_tokens", self.max_tokens >= 1, "at least 1")
        self._check("temperature", math.isfinite(self.temperature) and 0 <= self.temperature <= 100, "a number in [0, 100]")
        self._check("top_p", math.isfinite(self.top_p) and 0 < self.top_p <= 1, "a number in (0, 1]")
        self._check("top_k", self.top_k >= 0, "at least 0")
        self._check("seed", self.seed is None or (type(self.seed) is int and abs(self.seed) < 2**63), "None or an int of less than 64 bits")
        most = max(20, len(self.allowed_token_ids))
        self._check("logprobs", self.logprobs is None or 0 <= self.logprobs <= most, f"None or in [0, {most}]")
        self._check("prompt_logprobs", self.prompt_logprobs is None or 0 <= self.prompt_logprobs <= 20, "None or in [0, 20]")
        self._check("stop", all(self.stop), "texts that are not empty")

    def _check(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise InputError(f"{name} must be {allowed}, got {getattr(self, name)!r}.")
