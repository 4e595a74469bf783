"""Fields of a request that are known and not served, and those that change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from cloudchamber.core.errors import InputError

NEUTRAL: dict[str, tuple[Any, ...]] = {  # what is known and not served, and the values that ask for nothing
    "audio": (),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
HARMLESS = {  # what changes no answer here: labels, billing, storage, hints
    "metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier",
    "store", "user",
}  # fmt: skip


def check_field(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuse a field that would be ignored and changes the answer; ``known``: those that are served.

    Raises
    ------
    InputError
        If it is not served here, or unknown: with the nearest that is known.
    """
    if name in known or name in HARMLESS:
        return
    if name not in NEUTRAL:
        name = name[:64]  # a client chooses how long it is
        near = get_close_matches(name, [*known, *sorted(HARMLESS)], 1, 0.0)[0]
        raise InputError(f"{name} is no field of this request; the nearest that is one is {near}.")
    if value not in NEUTRAL[name]:
        raise InputError(f"{name} is not served here; leave it out.")
