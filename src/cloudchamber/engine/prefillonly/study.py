"""The study ``engine.prefillonly``: requests for a single token, one at a time, in which order and with which KV kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cloudchamber.core.datasets import Dataset
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.study import Figure, Study, rng_of
from cloudchamber.engine.data import traces_dataset
from cloudchamber.engine.study import SOURCES, found_or_twin, outcome_of, replace_future, violations

from .claims import CLAIMS
from .model import PrefillScheduler

if TYPE_CHECKING:
    from cloudchamber.core.results import Results
    from cloudchamber.engine.model import EngineSpec
    from cloudchamber.engine.request import Request

    from .workloads import PrefillWorkload

OWN = ("memory.py", "model.py", "simulator.py", "study.py", "workloads.py", "policies/*.py", "presets/*.json")


class PrefillStudy(Study):
    """The study engine.prefillonly: in which order requests for one token run, and how much of their KV stays."""

    name = "engine.prefillonly"
    title = "Prefill-only serving"
    systems = ("PrefillOnly",)
    papers = ("PrefillOnly: An Inference Engine for Prefill-only Workloads in Large Language Model Applications",)
    protocol = PrefillScheduler
    metrics = (
        Metric("mean_latency_s", "s"),
        Metric("p99_latency_s", "s"),
        Metric("throughput_rps", "1/s", "max"),
        Metric("hit_share", "1", "max", high=1.0),
        Metric("busy_share", "1", high=1.0 + 1e-9),
    )
    floor = ("RandomOrder",)
    claims = CLAIMS
    sources = (*SOURCES, *(f"engine/prefillonly/{name}" for name in OWN))
    notes = (
        "The engine's own core serves one request a step on the cost model t = b·miss + c·miss·(n_input - miss/2).",
        "The bound is proven, not attained: shortest remaining work first with preemption, every prefix computed once. "
        "OracleMeanOrder is the best of all orders for at most 9 requests an instance, and shortest job first beyond.",
        "Two GPUs as one (tensor, pipeline) are modelled, in their favour.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in policies."""
        from . import FCFS, CalibratedSJF, FrozenSJF, LongestPrefixMatch, OracleMeanOrder, RandomOrder

        return {cls.__name__: cls for cls in (CalibratedSJF, FrozenSJF, FCFS, LongestPrefixMatch, RandomOrder, OracleMeanOrder)}

    def workloads(self) -> Mapping[str, PrefillWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def adjusted(self, workload: Any, **params: Any) -> PrefillWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def ready(self, workload: Any) -> tuple[PrefillWorkload, str]:
        """Find the public traces, or replace a workload by its generated twin and say so."""
        return found_or_twin(workload) if workload.is_listed else (workload, "")

    def datasets(self) -> Iterable[Dataset]:
        """The public traces."""
        return (traces_dataset(),)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Serve one draw of requests."""
        from .simulator import route, serve

        trace = workload.trace(seed)
        spec = workload.spec(trace)
        told = replace_future(spec, trace) if is_clairvoyant(policy) else spec
        requests = trace.requests()
        finished, cores = [], []
        for own in route(requests, workload.instances):
            if own:
                done, core = serve(policy, own, _own_future(told, own), rng_of(self.name, workload.name, seed))
                finished += done
                cores.append(core)
        problems = violations(requests, finished, *cores)
        return _outcome(outcome_of(requests, problems), len(cores))

    def bound(self, workload: Any, seed: int) -> Bound:
        """Shortest remaining work first, every prefix computed once."""
        from cloudchamber.engine.optimum import limits

        trace = workload.trace(seed)
        spec = workload.spec(trace)
        return Bound(limits(trace, spec, machines=workload.instances).mean_latency_s, False)

    def figures(self, results: Results) -> Sequence[Figure]:
        """Latency over the load, and what each choice of lam costs."""
        from .figures import figures

        return figures(results)


def _own_future(told: EngineSpec, own: Sequence[Request]) -> EngineSpec:
    """An instance's part of the future, if any is told."""
    if told.future is None:
        return told
    ids = {r.id for r in own}
    return msgspec.structs.replace(told, future=tuple(each for each in told.future if each.id in ids))


def _outcome(found: Outcome, instances: int) -> Outcome:
    """The metrics of this study from the engine's."""
    if found.violations:
        return found
    series, metrics = dict(found.series), found.metrics
    span_s = float(series["finish_s"].max() - series["arrival_s"].min())
    admitted, finish = np.unique(np.stack([series["admitted_s"], series["finish_s"]]), axis=1)  # those of one step are served at once
    busy_s = float(np.sum(finish - admitted))
    made = {
        "mean_latency_s": metrics["mean_latency_s"],
        "p99_latency_s": metrics["p99_latency_s"],
        "throughput_rps": len(series["finish_s"]) / span_s,
        "hit_share": metrics["hit_share"],
        "busy_share": busy_s / span_s / instances,
    }
    feedback = (
        f"Requests took {made['mean_latency_s']:.2f} s on average and {made['p99_latency_s']:.2f} s at the 99th percentile; "
        f"{made['hit_share']:.1%} of prompt tokens came from the cache."
    )
    return Outcome(made, (), series, feedback)
