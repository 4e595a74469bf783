"""Claims on Radial Attention, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

STATED = "2026-11-28T14:54:00+00:00"  # the problem's specification, older than the code
ERROR = Metric("l1_error", "1", high=2.0)
RADIAL = Source(
    "Radial Attention: O(n log n) Sparse Attention with Energy Decay for Long Video Generation", "arXiv 2506.19852", "2025-06-24"
)
STUDY = ("chamber", "study", "attention.radial", "--json")
SCALE = "simulated: 8 heads whose attention decays at drawn rates, the density of the paper's mask"


def _claim(id: str, text: str, published: str, over: str, workload: str, tolerance: Tolerance) -> Claim:
    return Claim(
        id=f"attention-radial-{id}",
        text=text,
        source=RADIAL,
        published=Published(published),
        quantity=ERROR,
        comparator=over,
        population=Population(SCALE, (workload,), allows_generated=True),
        tolerance=tolerance,
        measure=Measure("ratio", ("RadialPaper",), over=over),
        kind="simulated",
        reproduce=STUDY,
        assessor="threshold",
        limits=("toy scale", "own comparator", "author-run"),
    )


CLAIMS = (
    _claim(
        "below-window",
        "At equal density the radial mask is nearer to dense attention than a window in time and space.",
        "L1 error 3.9e-3 against 1.5e-2 of STA",
        "SlidingTile",
        "decay-32x64",
        Tolerance(STATED, high=1.0),
    ),
    _claim(
        "below-spatial",
        "and than whole frames around.",
        "L1 error 3.9e-3 against 4.4e-3 of Sparse VideoGen",
        "SpatialOnly",
        "decay-32x64",
        Tolerance(STATED, high=1.0),
    ),
    _claim(
        "below-temporal",
        "and than the same place in every frame.",
        "L1 error 3.9e-3 against 4.4e-3 of Sparse VideoGen",
        "TemporalOnly",
        "decay-32x64",
        Tolerance(STATED, high=1.0),
    ),
)
