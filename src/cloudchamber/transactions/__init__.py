"""In which order to run transactions that conflict.

The problem
-----------
Transactions that read and write the same keys must wait for one another, and who waits for whom is decided by the order in which they
are let in. Databases take the order of arrival; the best order is NP-hard to find. A :class:`Scheduler` is given a batch and answers with
an order; the world computes the makespan, the slots until the last transaction ends.

>>> from cloudchamber import study
>>> results = study("transactions", policies=["LocalSearch", "SMF", "FIFO"], workloads=["smoke"])
>>> rows = {row.policy: row.mean for row in results.summary()}
>>> rows["LocalSearch"] <= rows["FIFO"]
True

Your own batch: a JSON file ``{"NAME": "r-1 w-2 *", ...}`` for ``--trace``. Your own policy: a class with ``reset`` and ``order``; see
:class:`Scheduler`.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "model": ("Batch", "BatchSpec", "Scheduler", "Timeline", "batch_of", "least_gaps", "makespan", "starts_of"),
    "simulator": ("Schedule", "Simulator"),
    "optimum": ("lower_bound", "optimal_order", "simple_bound"),
    "policies.best_of_random": ("BestOfRandom",),
    "policies.clustered": ("Clustered",),
    "policies.cpsat_exact": ("CPSATExact",),
    "policies.fewest_writes_first": ("FewestWritesFirst",),
    "policies.fifo": ("FIFO",),
    "policies.genetic_search": ("GeneticSearch",),
    "policies.iterated_greedy": ("IteratedGreedy",),
    "policies.local_search": ("LocalSearch",),
    "policies.random_order": ("Random",),
    "policies.shortest_first": ("ShortestFirst",),
    "policies.smf": ("SMF",),
    "policies.smf_all": ("SMFAll",),
    "policies.tabu_search": ("TabuSearch",),
    "generators": ("Shape",),
    "workloads": ("TxnWorkload",),
    "study": ("TransactionsStudy",),
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
