"""Claims on sparse attention, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

OURS = "2026-11-28T15:30:00+00:00"  # limits of our own, set before the first run on record
REAL_STATED = "2026-11-28T19:16:00+00:00"
RECALL = Metric("recall", "1", "max", high=1 + 1e-9)
VSA = Source("VSA: Faster Video Diffusion with Trainable Sparse Attention", "arXiv 2505.13389", "2025-05-19")
SVG2 = Source(
    "Sparse VideoGen2: Accelerate Video Generation with Sparse Attention via Semantic-Aware Permutation", "arXiv 2505.18875", "2025-05-24"
)
STUDY = ("chamber", "study", "attention", "--json")
ON_REAL = ("chamber", "study", "attention", "--workload", "minilm", "--json")
SCALE = "simulated: generated queries and keys, 4 heads over 1,024 tokens, blocks of 32, an eighth of the key blocks"


REAL = "simulated: queries and keys of all-MiniLM-L6-v2, 72 heads over 512 tokens, blocks of 32, an eighth of the key blocks"


def _claim(
    id: str,
    text: str,
    source: Source,
    published: str,
    measure: Measure,
    workload: str,
    tolerance: Tolerance,
    scale: str = SCALE,
) -> Claim:
    return Claim(
        id=f"attention-{id}",
        text=text,
        source=source,
        published=Published(published),
        quantity=RECALL,
        comparator="the same budget of key blocks",
        population=Population(scale, (workload,), allows_generated=scale == SCALE),
        tolerance=tolerance,
        measure=measure,
        kind="simulated",
        reproduce=STUDY if scale == SCALE else ON_REAL,
        assessor="threshold",
        limits=("toy scale", "own comparator", "author-run"),
    )


CLAIMS = (
    _claim(
        "pooled-on-decay",
        "Where attention decays with distance, means of blocks find nearly all that could be found.",
        VSA,
        "none",
        Measure("ratio", ("PooledTopK",), over="OracleTopK"),
        "decay",
        Tolerance(OURS, low=0.9),
    ),
    _claim(
        "raster-on-clusters",
        "Blocks of neighbours miss attention between like tokens that lie apart, whoever chooses among them.",
        SVG2,
        "recall of blocks by position falls far short of semantic clusters",
        Measure("mean", ("OracleTopK",)),
        "clustered",
        Tolerance(OURS, high=0.7),
    ),
    _claim(
        "pooled-blind-to-iid",
        "Where tokens of a block have nothing in common, means choose hardly better than the lot.",
        VSA,
        "none",
        Measure("ratio", ("PooledTopK",), over="RandomBlocks"),
        "iid",
        Tolerance(OURS, low=1.0, high=1.3),
    ),
    _claim(
        "pooled-on-real-heads",
        "On the heads of a real text model, means of blocks find most of what could be found.",
        VSA,
        "none",
        Measure("ratio", ("PooledTopK",), over="OracleTopK"),
        "minilm",
        Tolerance(REAL_STATED, low=0.85),
        REAL,
    ),
    _claim(
        "window-on-real-heads",
        "where a window alone misses more of it than means of blocks do.",
        SVG2,
        "none",
        Measure("ratio", ("SlidingWindow",), over="PooledTopK"),
        "minilm",
        Tolerance(REAL_STATED, high=1.0),
        REAL,
    ),
)
