"""Claims on Sparse VideoGen2, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

OURS = "2026-11-28T15:50:00+00:00"  # limits of our own, set before the first run on record
DENSITY = Metric("repaired_density", "1", high=1 + 1e-9)
SVG2 = Source(
    "Sparse VideoGen2: Accelerate Video Generation with Sparse Attention via Semantic-Aware Permutation", "arXiv 2505.18875", "2025-05-24"
)
STUDY = ("chamber", "study", "attention.svg2", "--json")
SCALE = "simulated: 24 semantic groups over 2,048 tokens, a quarter of them scattered, 32 clusters, 90 % of the attention"


def _claim(id: str, text: str, published: str, policy: str, workload: str, tolerance: Tolerance) -> Claim:
    return Claim(
        id=f"attention-svg2-{id}",
        text=text,
        source=SVG2,
        published=Published(published),
        quantity=DENSITY,
        comparator="dense attention",
        population=Population(SCALE, (workload,), allows_generated=True),
        tolerance=tolerance,
        measure=Measure("mean", (policy,)),
        kind="simulated",
        reproduce=STUDY,
        assessor="threshold",
        limits=("toy scale", "own comparator", "author-run"),
    )


CLAIMS = (
    _claim(
        "clusters",
        "Clusters by k-means let a calibrated rule catch nine tenths of the attention with a fraction of the pairs.",
        "density 25.5 % at PSNR 30.45 (HunyuanVideo)",
        "CalibratedTopP",
        "kmeans",
        Tolerance(OURS, high=0.3),
    ),
    _claim(
        "tiles",
        "Tiles of neighbours need most of all pairs for the same, even if attention is known.",
        "none",
        "OracleMass",
        "tiles",
        Tolerance(OURS, low=0.5),
    ),
)
