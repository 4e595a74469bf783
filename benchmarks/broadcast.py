"""Speed of the broadcast module, side by side with what one would use instead, in one run.

* the exact Steiner tree against NetworkX's approximation on the same grid (undirected, since it has no directed one),
  with the egress both pay;
* the cheapest paths against NetworkX's Dijkstra.

Run: ``.venv/bin/python benchmarks/broadcast.py``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from cloudchamber.broadcast import Broadcast, TreeSearch, measured, run, steiner_tree
from cloudchamber.broadcast.policies.dijkstra import cheapest_paths
from cloudchamber.broadcast.policies.dreyfus_wagner import pruned
from cloudchamber.core.registry import load_study
from cloudchamber.core.results import Table

REPEATS = 3


def interleaved(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each call, taken in turn, after one round that is not counted."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS + 1):
        for work, found in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return [statistics.median(each[1:]) for each in seconds]


def main() -> None:
    """Print every figure."""
    import networkx as nx

    subject = load_study("broadcast")
    workload, note = subject.ready(subject.workloads()["cloudcast"])
    print(note or "public grids", file=sys.stderr)
    worlds = [workload.world(seed) for seed in range(5)]
    price = worlds[0][0].price_usd_gb
    directed = nx.DiGraph((i, j, {"weight": price[i, j]}) for i, j in np.argwhere(np.isfinite(price)).tolist())
    undirected = nx.Graph((i, j, {"weight": min(price[i, j], price[j, i])}) for i, j in directed.edges)

    def exact() -> list[float]:
        return [steiner_tree(spec.price_usd_gb, job.source, job.destinations)[0] * job.volume_gb for spec, job in worlds]

    def approximate() -> list[float]:
        from networkx.algorithms.approximation import steiner_tree as approximation

        paid = []
        for spec, job in worlds:
            found = approximation(undirected, [job.source, *job.destinations]).edges
            tree = pruned({*found, *((b, a) for a, b in found)}, job.source, job.destinations)
            paid.append(measured(Broadcast((tree,) * job.partitions), spec, job).egress_usd)
        return paid

    ours, theirs = interleaved(exact, approximate)
    rows = [
        (
            "Steiner trees of 5 jobs",
            f"{ours * 1e3:.0f} ms, {sum(exact()):.0f} USD",
            f"NetworkX {theirs * 1e3:.0f} ms, {sum(approximate()):.0f} USD",
            f"{theirs / ours:.1f}",
        )
    ]
    ours, theirs = interleaved(lambda: cheapest_paths(price, 0), lambda: nx.single_source_dijkstra_path_length(directed, 0))
    rows.append(("cheapest paths, 71 regions", f"{ours * 1e3:.1f} ms", f"NetworkX {theirs * 1e3:.1f} ms", f"{theirs / ours:.2f}"))
    search, plain = interleaved(
        lambda: [run(TreeSearch(), *world, np.random.default_rng(0)) for world in worlds],
        lambda: [run(TreeSearch(rounds=0), *world, np.random.default_rng(0)) for world in worlds],
    )
    rows.append(("TreeSearch, 5 jobs", f"{search * 1e3:.0f} ms", f"without rounds {plain * 1e3:.0f} ms", f"{plain / search:.2f}"))
    print(Table(("what", "ours", "against", "ratio"), tuple(rows)))


if __name__ == "__main__":
    main()
