"""The study ``spot``: every known policy, the baselines and the exact optimum, on any trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.datasets import Dataset, locate
from cloudchamber.core.errors import DatasetUnavailable
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .data import spot_dataset
from .model import LEDGER, SpotPolicy

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .simulator import Run
    from .workloads import SpotWorkload, World


class SpotStudy(Study):
    """Where and when to run a job with a deadline on spot and on-demand instances of several zones."""

    name = "spot"
    title = "Spot scheduling under a deadline"
    systems = ("SkyNomad", "Can't Be Late", "SkyPilot")
    papers = (
        "SkyNomad: On Using Multi-Region Spot Instances to Minimize AI Batch Job Cost",
        "Can't Be Late: Optimizing Spot Instance Savings under Deadlines",
    )
    protocol = SpotPolicy
    metrics = (
        Metric("cost_usd", "USD"),
        *(Metric(name, "USD") for name in LEDGER),
        Metric("finish_h", "h"),
        Metric("spot_h", "h"),
        Metric("on_demand_h", "h"),
        Metric("idle_h", "h"),
        Metric("launches", "1"),
        Metric("preemptions", "1"),
        Metric("migrations", "1"),
        Metric("questions", "1"),
    )
    floor = ("OnDemandOnly",)
    claims = CLAIMS
    notes = (
        "Every policy runs under the deadline guard, so none may be late; the ledger bills every started tick, cold starts included.",
        "UniformProgress and GreedySpot draw one zone per start, so their rows vary with the draw; SkyNomad-oracle is told true lifetimes.",
        "On AWS traces ticks are 195 s: work and cold start are rounded up, the deadline down, for policies and optimum alike.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in policies; ``SkyNomad-oracle`` sees true lifetimes."""
        from . import (
            GreedyMulti,
            GreedySpot,
            OnDemandOnly,
            Oracle,
            SkyNomad,
            UniformProgress,
            UniformProgressAvailability,
            UniformProgressAvailabilityPerPrice,
            UniformProgressSwitch,
        )

        classes = (
            SkyNomad,
            UniformProgressSwitch,
            UniformProgressAvailability,
            UniformProgressAvailabilityPerPrice,
            UniformProgress,
            GreedyMulti,
            GreedySpot,
            OnDemandOnly,
        )
        return {"SkyNomad-oracle": partial(SkyNomad, lifetime=Oracle()), **{cls.__name__: cls for cls in classes}}

    def workloads(self) -> Mapping[str, SpotWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def workload(self, trace: Path, **params: Any) -> SpotWorkload:
        """Return the workload of a user's trace."""
        from .workloads import user_workload

        return user_workload(trace, params)

    def adjusted(self, workload: Any, **params: Any) -> SpotWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def ready(self, workload: Any) -> tuple[SpotWorkload, str]:
        """Find the data a named workload needs, or replace it by its generated twin and say so."""
        if workload.is_generated or workload.trace is not None:
            return workload, ""
        try:
            return replace(workload, folder=str(locate(spot_dataset()))), ""
        except DatasetUnavailable as error:
            return replace(workload, is_generated=True), f"{error} Until then its workloads run on generated twins, and their rows say so."

    def datasets(self) -> Iterable[Dataset]:
        """The public spot traces."""
        return (spot_dataset(),)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Run one policy from one start."""
        world = workload.world(seed)
        run = world.simulator.run(policy, rng_of(self.name, workload.name, seed), show_future=is_clairvoyant(policy))
        return _outcome(run, world)

    def bound(self, workload: Any, seed: int) -> Bound:
        """The exact offline optimum and the schedule that attains it."""
        world = workload.world(seed)
        best = world.optimum
        return Bound(best.cost_usd, True, _schedule_outcome(best.cost_usd, best.state, best.zone, world))

    def figures(self, results: Results) -> Sequence[Figure]:
        """Time lines of one start, cumulative cost and slack."""
        from .figures import figures

        return figures(results)


def _outcome(run: Run, world: World) -> Outcome:
    hours = world.market.tick_s / 3600
    time_in = np.bincount(run.state, minlength=3) * hours
    metrics = {
        "cost_usd": run.total_usd,
        **run.spent_usd,
        "finish_h": len(run.state) * hours,
        "spot_h": float(time_in[1]),
        "on_demand_h": float(time_in[2]),
        "idle_h": float(time_in[0]),
        "launches": run.launches,
        "preemptions": run.preemptions,
        "migrations": run.migrations,
        "questions": run.questions,
    }
    from .simulator import audit

    series = {"state": run.state, "zone": run.zone, "progress": run.progress.astype(np.int32), "cost_usd": run.cost_usd.astype(np.float32)}
    spent = ", ".join(f"{name.removesuffix('_usd')} {run.spent_usd[name]:.2f}" for name in LEDGER)
    feedback = (
        f"cost {run.total_usd:.2f} USD ({spent}); {run.launches} launches, {run.preemptions} preemptions, {run.migrations} migrations; "
        f"{time_in[0]:.1f} h idle, finished {(world.job.deadline - len(run.state)) * hours:.1f} h before the deadline."
    )
    return Outcome(metrics, audit(run, world.simulator), series, feedback)


def _schedule_outcome(cost_usd: float, state: np.ndarray, zone: np.ndarray, world: World) -> Outcome:
    """The optimum's schedule as an outcome, priced tick by tick by the same rules."""
    hours = world.market.tick_s / 3600
    from .simulator import changes

    starts = set(changes(state, zone).tolist())
    progress, spent, left, last = [0], [0.0], 0, -1
    for t in range(len(state)):
        z, price = int(zone[t]), 0.0
        if state[t]:
            if t in starts:
                left = world.job.cold_start
                price = world.spec.egress_usd[last, z] if last >= 0 else 0.0
                last = z
            price += (world.market.spot_usd_h[t, z] if state[t] == 1 else world.market.on_demand_usd_h[z]) * hours
        progress.append(progress[-1] + (1 if state[t] and left == 0 else 0))
        spent.append(spent[-1] + price)
        left = max(left - 1, 0)
    wrong = (
        ()
        if abs(spent[-1] - cost_usd) < 1e-6 * max(1, cost_usd) and progress[-1] == world.job.work
        else (f"the optimum's schedule costs {spent[-1]:.6f}, its value is {cost_usd:.6f}",)
    )
    return Outcome(
        {"cost_usd": cost_usd},
        wrong,
        {"state": state, "zone": zone, "progress": np.array(progress, dtype=np.int32), "cost_usd": np.array(spent, dtype=np.float32)},
    )
