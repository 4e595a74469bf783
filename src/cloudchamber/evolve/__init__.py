"""Search for a better policy on any study, verified where the candidate cannot cheat.

>>> from cloudchamber.evolve import Budget, Search, Settings
>>> settings = Settings(start="PrismGreedy", workloads=("smoke",), trials=(2, 1, 2), seed=1)
>>> with Search("placement", settings, budget=Budget(evaluations=3)) as search:
...     search.run()
>>> search.best().score > 0
True
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "model": ("Budget", "BudgetSpent", "Context", "Proposal", "Proposer", "ProposerUnavailable", "Scored", "Spend", "Task", "Verdict"),
    "search": ("Search", "resume"),
    "settings": ("Settings",),
    "archive": ("Archive", "MixedArchive", "ParetoArchive", "StartsOnly", "TopArchive"),
    "proposers.tune": ("TuneLiterals",),
    "proposers.mutate": ("MutateAST",),
    "proposers.splice": ("SpliceAST",),
    "proposers.restart": ("RandomRestart",),
    "proposers.llm": ("Crossover", "LLMDiff", "LLMRewrite", "Paradigm", "Reflect"),
    "client": ("Client", "client_of"),
    "redteam": ("RedTeam", "red_team"),
    "verdict": ("HeldOut", "judge"),
    "export": ("export",),
    "store": ("Store",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
