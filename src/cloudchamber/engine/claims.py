"""The headline claims on scheduling an LLM server, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

OURS = "2026-11-22T17:00:00+00:00"  # limits of our own
LATENCY, HITS = Metric("mean_latency_s", "s"), Metric("hit_share", "1", "max", high=1.0)
SGLANG = Source("SGLang: Efficient Execution of Structured Language Model Programs", "NeurIPS 2024", "2023-12-12")
SARATHI = Source("Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", "OSDI 2024", "2024-03-04")
STUDY = ("chamber", "study", "engine", "--json")
SCALE = "simulated: one engine with an approximate cost model of an 8B model, slices of 300 requests"


def _claim(
    id: str, text: str, quantity: Metric, measure: Measure, workloads: tuple[str, ...], tolerance: Tolerance, *, source: Source = SARATHI,
    published: str = "none", against: str = "order of arrival", is_bound: bool = False, generated: bool = False, miss: str = "",
) -> Claim:  # fmt: skip
    return Claim(
        id=f"engine-{id}",
        text=text,
        source=source,
        published=Published(published),
        quantity=quantity,
        comparator=against,
        population=Population(SCALE, workloads, allows_generated=generated),
        tolerance=tolerance,
        measure=measure,
        kind="simulated",
        reproduce=STUDY,
        assessor="bound" if is_bound else "threshold",
        limits=("other hardware", "own comparator", "author-run"),
        miss=miss,
    )


REAL = ("azure-code", "azure-conv", "mooncake")
CLAIMS = (
    _claim(
        "short-prompts-code",
        "When bursts queue, serving short prompts first shortens the mean latency.",
        LATENCY,
        Measure("ratio", ("ShortestPrompt",), over="FCFS"),
        ("azure-code",),
        Tolerance(OURS, high=0.95),
    ),
    _claim(
        "short-prompts-mooncake",
        "and more so where prompts are long and memory is short.",
        LATENCY,
        Measure("ratio", ("ShortestPrompt",), over="FCFS"),
        ("mooncake",),
        Tolerance(OURS, high=0.8),
    ),
    _claim(
        "prefix-order",
        "Serving the longest cached prefix first finds at least as much in the cache as the order of arrival, on a real trace.",
        HITS,
        Measure("ratio", ("LongestPrefixMatch",), over="FCFS"),
        ("mooncake",),
        Tolerance(OURS, low=1.0),
        source=SGLANG,
        published="optimal hit rate in a batch that is known beforehand",
    ),
    _claim(
        "near-bound",
        "Descriptive: what is left between the best simple order and the proven bound, on bursts of code requests.",
        LATENCY,
        Measure("ratio", ("ShortestPrompt",)),
        ("azure-code",),
        Tolerance(OURS, high=3.0),
        against="a bound that no policy beats",
    ),
    _claim(
        "no-voids",
        "No policy loses a request, leaks a block or beats the bound.",
        LATENCY,
        Measure("voids"),
        (*REAL, "chat"),
        Tolerance(OURS, high=0.0),
        against="the world's own records, and a bound that no policy beats",
        is_bound=True,
        generated=True,
    ),
)  # fmt: skip
