"""What a scheduler of prefills is made of: an estimate of how long a request takes, and a rule for what stays in memory."""

from __future__ import annotations

from typing import Any, Protocol

from cloudchamber.engine.model import SchedulerPolicy


class PrefillScheduler(SchedulerPolicy, Protocol):
    """The engine's scheduler, asked about requests for one token: ``order`` and ``keep`` are what matters."""


class JCT(Protocol):
    """How long a request takes on an idle engine, in a unit of its own choice. Works on arrays too."""

    def __call__(self, n_input: Any, n_cached: Any) -> Any:
        """Return the estimate for prompts of ``n_input`` tokens of which ``n_cached`` are cached."""
        ...


class PrefixKeep(Protocol):
    """How much of a prompt's KV stays."""

    def keep_tokens(self, n_input: int, n_hit: int, free_tokens: int, block: int) -> int:
        """Return leading tokens to keep, in whole blocks of ``block``, or all.

        Parameters
        ----------
        n_input, n_hit : int
            Tokens of the prompt, and of its prefix that is cached.
        free_tokens : int
            Tokens that the pool could hold for this request, its cached prefix among them, by evicting what nobody uses.
        block : int
        """
        ...
