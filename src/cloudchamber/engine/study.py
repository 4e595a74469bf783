"""The study ``engine``: in which order an LLM server computes what, on real traces of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.datasets import Dataset, locate
from cloudchamber.core.errors import DatasetUnavailable
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .data import traces_dataset
from .model import SchedulerPolicy

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .core import EngineCore
    from .optimum import Limits
    from .request import Request
    from .workloads import EngineWorkload

METRICS = (
    Metric("mean_latency_s", "s"),
    Metric("p99_latency_s", "s"),
    Metric("mean_ttft_s", "s"),
    Metric("p99_ttft_s", "s"),
    Metric("mean_tpot_ms", "ms"),
    Metric("p99_gap_ms", "ms"),
    Metric("throughput_tps", "1/s", "max"),
    Metric("hit_share", "1", "max", high=1.0),
    Metric("preemptions", "1"),
)


SIMULATED = "clock,core,costmodel,data,kv,leap,model,optimum,programs,request,seams,simulator,stepping,study,traces,workloads".split(",")  # noqa: SIM905 (a list of so many would be a page)
SOURCES = (*(f"engine/{name}.py" for name in SIMULATED), "engine/policies/*.py", "engine/presets/*.json")  # of simulated results


class EngineStudy(Study):
    """The study engine: in which order an LLM server computes requests, what it keeps, and who gives way."""

    name = "engine"
    title = "Scheduling of an LLM server"
    systems = ("vLLM", "SGLang", "Autellix")
    papers = (
        "Efficient Memory Management for Large Language Model Serving with PagedAttention",
        "SGLang: Efficient Execution of Structured Language Model Programs",
        "Autellix: An Efficient Serving Engine for LLM Agents as General Programs",
        "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve",
        "Mooncake: Trading More Storage for Less Computation - A KVCache-centric Architecture for Serving LLM Chatbot",
    )
    protocol = SchedulerPolicy
    metrics = METRICS
    floor = ("RandomOrder",)
    claims = CLAIMS
    sources = SOURCES
    notes = (
        "The engine is the real one's core, memory manager and policy; only the executor is a cost model, and the clock virtual.",
        "The bound is proven, not attained: shortest remaining work first on a machine that does nothing but marginal work, or each "
        "request alone on the engine, whichever says more.",
        "Cost models are approximate unless they come from calibrate(): ratios between policies mean more than seconds.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in policies."""
        from . import FCFS, PLAS, LongestPrefixMatch, PriorityFCFS, RandomOrder, ShortestPrompt

        return {cls.__name__: cls for cls in (FCFS, LongestPrefixMatch, ShortestPrompt, PLAS, PriorityFCFS, RandomOrder)}

    def workloads(self) -> Mapping[str, EngineWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def workload(self, trace: Path, **params: Any) -> EngineWorkload:
        """Return the workload of a user's trace."""
        from .workloads import user_workload

        return user_workload(trace, params)

    def adjusted(self, workload: Any, **params: Any) -> EngineWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)  # type: ignore[no-any-return]

    def ready(self, workload: Any) -> tuple[EngineWorkload, str]:
        """Find the public traces, or replace a workload by its generated twin and say so."""
        return found_or_twin(workload)

    def datasets(self) -> Iterable[Dataset]:
        """The public traces."""
        return (traces_dataset(),)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Serve one slice of a trace."""
        from .clock import VirtualClock
        from .core import EngineCore
        from .costmodel import CostModelExecutor
        from .kv import PagedKV
        from .simulator import drive

        trace = workload.trace(seed)
        spec = workload.spec(trace)
        shown = replace_future(spec, trace) if is_clairvoyant(policy) else spec
        policy.reset(shown, rng_of(self.name, workload.name, seed))
        core = EngineCore(PagedKV(spec.blocks, spec.block_tokens), policy, CostModelExecutor(spec.cost), VirtualClock(), spec)
        requests = trace.requests(workload.priorities(seed))
        finished = drive(core, requests)
        return outcome_of(requests, violations(requests, finished, core))

    def bound(self, workload: Any, seed: int) -> Bound:
        """A mean latency that no policy beats."""
        return Bound(self.limits(workload, seed).mean_latency_s, False)

    @staticmethod
    def limits(workload: EngineWorkload, seed: int) -> Limits:
        """Return the bound with the load and the hits there are to have."""
        from .optimum import limits

        trace = workload.trace(seed)
        return limits(trace, workload.spec(trace))

    def figures(self, results: Results) -> Sequence[Figure]:
        """Latency against its bound, and what happened in one trial."""
        from .figures import figures

        return figures(results)


def found_or_twin(workload: Any) -> tuple[Any, str]:
    """Return a workload whose data is here, or its generated twin and a note."""
    if workload.is_generated or workload.source == "file":
        return workload, ""
    try:
        locate(traces_dataset())
    except DatasetUnavailable as error:
        return workload.twin(), f"{error} Until then its workloads run on generated twins, and their rows say so."
    return workload, ""


def replace_future(spec: Any, trace: Any) -> Any:
    """Return the spec with the trial's requests in it."""
    import msgspec

    return msgspec.structs.replace(spec, future=trace.future())


def violations(requests: Sequence[Request], finished: Sequence[Request], *cores: EngineCore) -> tuple[str, ...]:
    """Return what went wrong by the world's own records: a policy decides on order and memory, never on what is computed."""
    found = []
    if len(finished) != len(requests) or {id(r) for r in finished} != {id(r) for r in requests}:
        found.append(f"{len(requests)} requests came, {len({id(r) for r in finished})} of them were finished in {len(finished)} answers")
    for r in requests:
        if r.finish != "length" or r.n_output != r.max_tokens:
            found.append(f"request {r.id} ended with {r.n_output} of {r.max_tokens} tokens ({r.finish})")
        elif not (r.arrival <= (r.admitted_s or 0.0) <= (r.first_token_s or 0.0) <= r.last_token_s == r.finish_s):
            found.append(f"request {r.id} has times out of order")
    for core in cores:
        pool = core.kv.counts()
        if core.requests or pool.used:
            found.append(f"{pool.used} blocks are still used, by {len(core.requests)} requests")
        if pool.free + pool.cached + pool.pinned != core.kv.blocks:
            found.append(f"{core.kv.blocks} blocks became {pool}")
    return tuple(found[:5])


def outcome_of(requests: Sequence[Request], problems: tuple[str, ...] = ()) -> Outcome:
    """Return the metrics of a finished trial."""
    if problems:
        return Outcome({}, problems, feedback="; ".join(problems))
    arrival = np.array([r.arrival for r in requests])
    end = np.array([r.finish_s for r in requests], dtype=float)
    first = np.array([r.first_token_s for r in requests], dtype=float)
    more = np.array([r.n_output - 1 for r in requests])
    several = more > 0
    latency, ttft, tpot = end - arrival, first - arrival, (end - first)[several] / more[several]
    metrics = {
        "mean_latency_s": float(latency.mean()),
        "p99_latency_s": float(np.quantile(latency, 0.99)),
        "mean_ttft_s": float(ttft.mean()),
        "p99_ttft_s": float(np.quantile(ttft, 0.99)),
        "mean_tpot_ms": float(1000 * tpot.mean()) if several.any() else 0.0,
        "p99_gap_ms": float(1000 * np.quantile([r.max_gap_s for r in requests], 0.99)),
        "throughput_tps": sum(r.n_output for r in requests) / float(end.max() - arrival.min()),
        "hit_share": sum(r.n_hit for r in requests) / sum(r.n_input for r in requests),
        "preemptions": float(sum(r.n_preempted for r in requests)),
    }
    worst = requests[int(latency.argmax())]
    feedback = (
        f"Requests took {metrics['mean_latency_s']:.2f} s on average, of which {metrics['mean_ttft_s']:.2f} s to the first token; "
        f"{metrics['hit_share']:.1%} of prompt tokens came from the cache; {metrics['preemptions']:.0f} preemptions. The slowest, "
        f"request {worst.id}, took {latency.max():.2f} s for {worst.n_input} prompt and {worst.n_output} answer tokens."
    )
    series = {
        "arrival_s": arrival, "admitted_s": np.array([r.admitted_s for r in requests]), "first_token_s": first, "finish_s": end,
        "n_input": np.array([r.n_input for r in requests]), "n_hit": np.array([r.n_hit for r in requests]),
    }  # fmt: skip
    return Outcome(metrics, (), series, feedback)
