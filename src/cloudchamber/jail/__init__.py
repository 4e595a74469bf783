"""Run policies you do not trust: no network, no files, no environment, no clock of theirs; only messages through one socket.

The candidate decides, never measures: the world, its workload, the score and the clock stay on the trusted side, and all the candidate can
send is actions.

>>> from cloudchamber.jail import load
>>> from cloudchamber.spot import SpotPolicy
>>> policy = load(open("examples/my_policy.py").read(), SpotPolicy)  # doctest: +SKIP

``chamber study NAME --policy file.py:Class`` and ``chamber run`` do this by default; ``chamber jail check`` says which walls stand here.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "chaos": ("ChaosJail",),
    "check": ("Check", "check"),
    "command": ("CommandJail", "CommandResult"),
    "files": ("JailedPolicy",),
    "levels": ("InProcess", "Jail", "LandlockJail", "NamespaceJail", "SubprocessJail", "best_level", "jail_of", "load"),
    "limits": ("Limits",),
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
