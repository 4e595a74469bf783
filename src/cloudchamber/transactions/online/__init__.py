"""Which waiting transactions enter a store next, and in which order.

Transactions arrive with a kind and an argument only. A predictor learns which hot keys such a call touches; whenever a worker is
free, an :class:`OnlineScheduler` is shown the window of those that wait and answers who enters. The store is :class:`MVStore`.

>>> from cloudchamber import study
>>> results = study("transactions.online", policies=["SMFOnline", "FIFOOnline"], workloads=["smoke"], seeds=1)
>>> [row.void for row in results.summary()]
[0, 0]

The real thing, in real time: ``chamber run transactions``.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "model": ("KeyState", "OnlineScheduler", "OnlineSpec", "TxnView"),
    "store": ("MVStore", "unserialisable"),
    "world": ("HotKeyPredictor", "World", "stream"),
    "simulator": ("simulate",),
    "runtime": ("run_coroutines", "run_threads"),
    "policies.fifo_online": ("FIFOOnline",),
    "policies.lock_aware": ("LockAware",),
    "policies.random_online": ("RandomOnline",),
    "policies.smf_online": ("SMFOnline",),
    "study": ("OnlineStudy", "OnlineWorkload"),
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
