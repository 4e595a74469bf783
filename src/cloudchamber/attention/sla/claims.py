"""Claims on SLA that need no training, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

OURS = "2026-11-28T18:50:00+00:00"  # limits of our own, set before the first run on record
MISSED = Metric("missed", "1", high=1 + 1e-9)
RANKS = Metric("rank_ratio", "1")
SLA = Source("SLA: Beyond Sparsity in Diffusion Transformers via Fine-Tunable Sparse-Linear Attention", "arXiv 2509.24006", "2025-09-28")
SLA2 = Source("SLA2", "arXiv 2602.12675", "2026-02")
STUDY = ("chamber", "study", "attention.sla", "--json")
SCALE = "simulated: generated queries and keys, 4 heads over 1,024 tokens in blocks of 16, 5 % critical, 10 % negligible"


def _claim(
    id: str, text: str, published: str, workload: str, measure: Measure, tolerance: Tolerance, quantity: Metric = MISSED, miss: str = ""
) -> Claim:
    return Claim(
        id=f"attention-sla-{id}",
        text=text,
        source=SLA2 if id == "ratio" else SLA,
        published=Published(published),
        quantity=quantity,
        comparator="the same budget of key blocks" if quantity is MISSED else "dense attention",
        population=Population(SCALE, (workload,), allows_generated=True),
        tolerance=tolerance,
        measure=measure,
        kind="simulated",
        reproduce=STUDY,
        assessor="threshold",
        limits=("toy scale", "own comparator", "author-run"),
        miss=miss,
    )


CLAIMS = (
    _claim(
        "router",
        "Where attention decays with distance, the paper's router misses hardly more than the best choice at its budget.",
        "none",
        "decay",
        Measure("ratio", ("TopShare",)),
        Tolerance(OURS, high=1.02),
    ),
    _claim(
        "router-on-clusters",
        "Where like tokens lie scattered, means of blocks find less than there is.",
        "none",
        "clustered",
        Measure("ratio", ("TopShare",)),
        Tolerance(OURS, low=1.03),
    ),
    _claim(
        "low-rank",
        "What is left of decaying attention when the critical blocks are taken out has a lower stable rank than they have.",
        "the few large weights are of high rank, the many small ones of very low rank",
        "decay",
        Measure("mean", ("TopShare",)),
        Tolerance(OURS, high=1.0),
        RANKS,
    ),
    _claim(
        "low-rank-on-clusters",
        "The same of attention between scattered groups.",
        "the few large weights are of high rank, the many small ones of very low rank",
        "clustered",
        Measure("mean", ("TopShare",)),
        Tolerance(OURS, high=1.0),
        RANKS,
        miss="the critical blocks hold but a sixth of this attention; with a fifth of the blocks critical it holds (seed 0)",
    ),
    _claim(
        "projection-alone",
        "No projection of the linear branch mends the output while the rest of the model stays as it is: on decaying attention it is "
        "further from dense attention than zeros are.",
        "training the projection alone is not enough (authors' answer to an issue)",
        "decay",
        Measure("mean", ("TopShare",)),
        Tolerance(OURS, low=1.0),
        Metric("error", "1"),
    ),
    _claim(
        "ratio",
        "Mixed by the critical share that the pooled scores estimate, sparse and linear attention come near to dense, untrained.",
        "sparse attention over the critical keys alone is off by the factor of their share",
        "decay",
        Measure("mean", ("TopShare",)),
        Tolerance(OURS, high=0.8),
        Metric("ratio_error", "1"),
    ),
)
