"""The study ``broadcast``: over which links data is copied to many regions, against the exact least egress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.datasets import Dataset, locate
from cloudchamber.core.errors import DatasetUnavailable
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .data import cloudcast_dataset
from .model import BroadcastPolicy, BroadcastSpec, Job

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .simulator import Transfer
    from .workloads import BroadcastWorkload


class BroadcastStudy(Study):
    """Over which links a data set is copied from one region to several, across clouds."""

    name = "broadcast"
    title = "Broadcasting data across clouds"
    systems = ("Cloudcast", "Skyplane", "ADRS")
    papers = (
        "Cloudcast: High-Throughput, Cost-Aware Overlay Multicast in the Cloud",
        "Barbarians at the Gate: How AI is Upending Systems Research",
        "Let the Barbarians In: How AI Can Accelerate Systems Performance Research",
    )
    protocol = BroadcastPolicy
    metrics = (
        Metric("cost_usd", "USD"),
        Metric("direct_share", "1", high=1.0),
        Metric("relay_share", "1", high=1.0),
        Metric("egress_usd", "USD"),
        Metric("vm_usd", "USD"),
        Metric("time_s", "s"),
    )
    floor = ("DirectStar", "RandomTree")
    claims = CLAIMS
    notes = (
        "The bill is egress (volume times price on every link of every partition's tree) and the VMs of all regions that take part.",
        "On cloudcast links are timed as published: each partition has a link's whole flow, a gigabyte counts as a gigabit. On "
        "cloudcast-shared partitions share links and a gigabyte is eight gigabits.",
        "The bound is the exact Steiner tree's egress and a proven least of VM time; it need not be attained.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in policies."""
        from . import (
            DijkstraPaths,
            DirectStar,
            DreyfusWagner,
            NearestDestination,
            RandomTree,
            StripedTrees,
            TakahashiMatsuyama,
            TreeSearch,
        )

        classes = (
            StripedTrees,
            TreeSearch,
            DreyfusWagner,
            TakahashiMatsuyama,
            NearestDestination,
            DijkstraPaths,
            RandomTree,
            DirectStar,
        )
        return {cls.__name__: cls for cls in classes}

    def workloads(self) -> Mapping[str, BroadcastWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def workload(self, trace: Path, **params: Any) -> BroadcastWorkload:
        """Return the workload of a user's folder of grids and jobs."""
        from .workloads import user_workload

        return user_workload(trace, params)

    def adjusted(self, workload: Any, **params: Any) -> BroadcastWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def ready(self, workload: Any) -> tuple[BroadcastWorkload, str]:
        """Find the published grids and jobs, or replace them by their generated twin and say so."""
        if workload.is_generated or workload.folder is not None:
            return workload, ""
        try:
            return replace(workload, folder=str(locate(cloudcast_dataset()))), ""
        except DatasetUnavailable as error:
            return workload.twin(), f"{error} Until then its workloads run on their generated twins, and their rows say so."

    def datasets(self) -> Iterable[Dataset]:
        """The grids and the jobs."""
        return (cloudcast_dataset(),)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Plan one job."""
        from .simulator import Transfer, run

        spec, job = workload.world(seed)
        found = run(policy, spec, job, rng_of(self.name, workload.name, seed))
        if isinstance(found, Transfer):
            return _outcome(found, spec, job)
        return Outcome(
            {}, found, feedback=f"{'; '.join(found)}. Return Broadcast(trees) with one tree of (from, to) links for each partition."
        )

    def bound(self, workload: Any, seed: int) -> Bound:
        """The least egress, exactly, and a proven least of VM time; with it the outcome of the tree of least egress if it attains both."""
        from .optimum import least_cost

        spec, job = workload.world(seed)
        least = least_cost(spec, job)
        attained = least.is_exact and least.transfer is not None
        return Bound(least.cost_usd, least.is_exact, _outcome(least.transfer, spec, job) if attained and least.transfer else None)

    def figures(self, results: Results) -> Sequence[Figure]:
        """The trees of one job, and the bills."""
        from .figures import figures

        return figures(results)


def _outcome(done: Transfer, spec: BroadcastSpec, job: Job) -> Outcome:
    links = list(done.partitions_on)
    direct = sum(done.partitions_on.get((job.source, each), 0) for each in job.destinations)
    metrics = {
        "cost_usd": done.cost_usd,
        "direct_share": direct / (len(job.destinations) * job.partitions),
        "relay_share": done.relays / len(spec.regions),
        "egress_usd": done.egress_usd,
        "vm_usd": done.vm_usd,
        "time_s": done.time_s,
    }
    series = {
        "links": np.array(links, dtype=np.int64).reshape(-1, 2),
        "partitions": np.array(list(done.partitions_on.values()), dtype=np.int64),
        "flow_gbps": np.array([done.flow_gbps[link] for link in links]),
    }
    part_gb = job.volume_gb / job.partitions
    dear = max(links, key=lambda link: (done.partitions_on[link] * float(spec.price_usd_gb[link]), link))
    a, b = done.slowest
    feedback = (
        f"cost {done.cost_usd:.3f} USD: egress {done.egress_usd:.2f}, VMs {done.vm_usd:.3f} for {done.time_s:.1f} s, {done.relays} relays. "
        f"Dearest link {spec.regions[dear[0]]} to {spec.regions[dear[1]]}: "
        f"{done.partitions_on[dear] * part_gb * float(spec.price_usd_gb[dear]):.2f} USD at {float(spec.price_usd_gb[dear]):g} USD/GB; "
        f"slowest {spec.regions[a]} to {spec.regions[b]}, {done.flow_gbps[a, b]:.2f} Gbit/s."
    )
    return Outcome(metrics, (), series, feedback)
