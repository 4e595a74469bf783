"""The headline claims on prefill-only serving, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

STATED = "2026-11-22T16:00:00+00:00"  # the problem's specification, older than the code
OURS = "2026-11-22T17:00:00+00:00"  # limits of our own
LATENCY, HITS = Metric("mean_latency_s", "s"), Metric("hit_share", "1", "max", high=1.0)
PAPER = Source(
    "PrefillOnly: An Inference Engine for Prefill-only Workloads in Large Language Model Applications", "SOSP 2025", "2025-05-12"
)
BASE = ("chamber", "study", "engine.prefillonly", "--json", "--policy", "CalibratedSJF", "--policy", "FrozenSJF", "--policy", "FCFS")
POST = (*BASE, "--workload", "post", "--seeds", "20")
TINY = (*BASE, "--policy", "OracleMeanOrder", "--workload", "tiny", "--seeds", "40")
SCALE = "simulated: approximate cost model of an 8B model on one A100; 20 users x 50 requests at 2x load, cache of 3 profiles"


def _claim(
    id: str, text: str, quantity: Metric, measure: Measure, tolerance: Tolerance, *, against: str = "order of arrival",
    reproduce: tuple[str, ...] = POST, workload: str = "post", published: str = "none",
) -> Claim:  # fmt: skip
    return Claim(
        id=f"prefillonly-{id}",
        text=text,
        source=PAPER,
        published=Published(published),
        quantity=quantity,
        comparator=against,
        population=Population(SCALE if workload == "post" else "simulated: 8 requests of 4 users", (workload,), allows_generated=True),
        tolerance=tolerance,
        measure=measure,
        kind="simulated",
        reproduce=reproduce,
        limits=("other hardware", "toy scale", "own comparator", "author-run"),
    )


CLAIMS = (
    _claim(
        "mean-latency",
        "Looking up again what is cached before every dispatch beats the order of arrival.",
        LATENCY,
        Measure("ratio", ("CalibratedSJF",), over="FCFS"),
        Tolerance(STATED, high=0.6),
        published="1.4-4.0x the load at equal latency",
    ),
    _claim(
        "against-frozen",
        "and shortest job first that looks only once.",
        LATENCY,
        Measure("ratio", ("CalibratedSJF",), over="FrozenSJF"),
        Tolerance(STATED, high=0.85),
        against="the same score, taken at arrival",
    ),
    _claim(
        "hits",
        "It finds more in the cache than the order of arrival",
        HITS,
        Measure("ratio", ("CalibratedSJF",), over="FCFS"),
        Tolerance(STATED, low=1.0),
    ),
    _claim(
        "hits-against-frozen",
        "and than the frozen score.",
        HITS,
        Measure("ratio", ("CalibratedSJF",), over="FrozenSJF"),
        Tolerance(STATED, low=1.0),
        against="the same score, taken at arrival",
    ),
    _claim(
        "near-bound",
        "On the paper's workload it is close to what any order could do.",
        LATENCY,
        Measure("ratio", ("CalibratedSJF",)),
        Tolerance(OURS, high=1.3),
        against="shortest remaining work first, every prefix computed once: a bound no policy beats",
    ),
    _claim(
        "oracle-gap",
        "It is greedy, and not optimal: against the best of all orders of eight requests.",
        LATENCY,
        Measure("ratio", ("CalibratedSJF",), over="OracleMeanOrder"),
        Tolerance(OURS, high=1.3),
        against="the best of all orders with the same rule for what is kept",
        reproduce=TINY,
        workload="tiny",
    ),
)
