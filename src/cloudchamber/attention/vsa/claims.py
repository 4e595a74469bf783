"""Claims on VSA's choice of tiles, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

STATED = "2026-11-28T14:54:00+00:00"  # the problem's specification, older than the code
FOUND = Metric("found", "1", "max", high=1.0)
VSA = Source("VSA: Faster Video Diffusion with Trainable Sparse Attention", "arXiv 2505.13389", "2025-05-19")
STUDY = ("chamber", "study", "attention.vsa", "--json")
SCALE = "simulated: 2 heads over 2,048 tokens in 32 tiles of 64, 4 of which are read"

CLAIMS = (
    Claim(
        id="attention-vsa-aligned",
        text="Where what a query tile looks for fills a tile, the means of tiles find it.",
        source=VSA,
        published=Published("about 80 % of critical tokens are in selected tiles (not verified)"),
        quantity=FOUND,
        comparator="the tile with the most attention",
        population=Population(SCALE, ("aligned",), allows_generated=True),
        tolerance=Tolerance(STATED, low=0.99),
        measure=Measure("mean", ("CoarseTopK",)),
        kind="simulated",
        reproduce=STUDY,
        assessor="threshold",
        limits=("toy scale", "own comparator", "author-run"),
    ),
    Claim(
        id="attention-vsa-cross-scene",
        text="A window cannot find what left the scene and comes back; scores between tiles can.",
        source=VSA,
        published=Published("none"),
        quantity=Metric("recall", "1", "max", high=1 + 1e-9),
        comparator="SlidingTiles",
        population=Population(SCALE, ("cross-scene",), allows_generated=True),
        tolerance=Tolerance(STATED, low=1.5),
        measure=Measure("ratio", ("CoarseTopK",), over="SlidingTiles"),
        kind="simulated",
        reproduce=STUDY,
        assessor="threshold",
        limits=("toy scale", "own comparator", "author-run"),
    ),
)
