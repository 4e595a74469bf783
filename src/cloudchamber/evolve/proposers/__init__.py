"""Who makes new candidates: four that need nothing but the code itself, and five that ask a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ..model import Proposer

PROPOSERS = {
    "tune": ("tune", "TuneLiterals"),
    "mutate": ("mutate", "MutateAST"),
    "splice": ("splice", "SpliceAST"),
    "restart": ("restart", "RandomRestart"),
    "diff": ("llm", "LLMDiff"),
    "rewrite": ("llm", "LLMRewrite"),
    "reflect": ("llm", "Reflect"),
    "crossover": ("llm", "Crossover"),
    "paradigm": ("llm", "Paradigm"),
}
NEED_MODEL = tuple(name for name, (home, _) in PROPOSERS.items() if home == "llm")


def make_proposers(names: Sequence[str], llm: Mapping[str, Any]) -> dict[str, Proposer]:
    """Proposers by name; those that ask a model share one client, made of ``llm``.

    Raises
    ------
    InputError
        If a model is needed and ``llm`` does not say which.
    """
    client = None
    made: dict[str, Proposer] = {}
    for name in names:
        home, cls = PROPOSERS[name]
        make = getattr(import_module(f"{__name__}.{home}"), cls)
        if name in NEED_MODEL:
            if client is None:
                from ..client import client_of

                client = client_of(llm)
            made[name] = make(client)
        else:
            made[name] = make()
    return made
