"""The headline claims on model placement, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import AssessorName, Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

STATED = "2026-11-22T12:12:45+00:00"  # the problem's specification, older than the code
OURS = "2026-11-22T12:30:00+00:00"  # limits of our own
KVPR, SCORE = Metric("kvpr", "1/GB"), Metric("score", "GB", "max")
ADRS = Source("Barbarians at the Gate: How AI is Upending Systems Research", "arXiv 2510.06189", "2025-10-07")
BARBARIANS = Source("Let the Barbarians In: How AI Can Accelerate Systems Performance Research", "arXiv 2512.14806", "2025-12-16")
STUDY = ("chamber", "study", "placement", "--json")
SCORES = ("python", "-m", "cloudchamber.placement.score", "--json")
SCALE = "simulated: 50 published instances, 5 to 9 GPUs of 80 GB, two models for each"


def _score(id: str, text: str, published: Published, policy: str, tolerance: Tolerance, against: str, source: Source = ADRS) -> Claim:
    return Claim(
        id=f"placement-{id}",
        text=text,
        source=source,
        published=published,
        quantity=SCORE,
        comparator=against,
        population=Population(f"{SCALE}; the set is one trial", ("prism",)),
        tolerance=tolerance,
        measure=Measure("max", (policy,)),
        kind="simulated",
        reproduce=SCORES,
        assessor="bound",
        limits=("author-run",),
    )


def _ratio(id: str, text: str, published: Published, measure: Measure, tolerance: Tolerance, assessor: AssessorName = "threshold") -> Claim:
    return Claim(
        id=f"placement-{id}",
        text=text,
        source=ADRS,
        published=published,
        quantity=KVPR,
        comparator="the exact optimum of every instance",
        population=Population(SCALE, ("prism",)),
        tolerance=tolerance,
        measure=measure,
        kind="simulated",
        reproduce=STUDY,
        assessor=assessor,
        limits=("own comparator", "tuned on test", "author-run"),
    )


CLAIMS = (
    _score(
        "paper-greedy",
        "The published baseline, Prism's greedy, reproduces its score, 1 / mean kvpr.",
        Published("20.89", 20.89),
        "PrismGreedy",
        Tolerance(STATED, 20.885, 20.895),
        "the published score of the same rule on the same instances",
    ),
    _score(
        "greedy-after",
        "Looking at the pressure after placing instead of before.",
        Published("none: reproduced by us at 21.34", 21.34),
        "GreedyAfter",
        Tolerance(STATED, 21.335, 21.345),
        "an independent implementation",
    ),
    _score(
        "greedy-mixed",
        "Ordering by rate/slo + 0.05 size as well.",
        Published("none: reproduced by us at 24.07", 24.07),
        "GreedyMixed",
        Tolerance(STATED, 24.065, 24.075),
        "an independent implementation",
    ),
    _score(
        "annealing",
        "Annealing over moves and swaps is close to what is possible.",
        Published("none: reproduced by us at 25.26", 25.26),
        "Annealing",
        Tolerance(STATED, low=25.2),
        "an independent implementation",
    ),
    _score(
        "optimum",
        "No placement of the 50 instances scores more than the exact optimum; published scores above it had no memory check.",
        Published("up to 29.52 (printed as 30.52, with 1 for success)", 29.52),
        "optimum",
        Tolerance(OURS, 25.25, 25.26),
        "bin packing over all subsets of models, instance by instance",
        BARBARIANS,
    ),
    _score(
        "mediant",
        "The simple bound, total demand over total free memory.",
        Published("none: reproduced by us at 28.40", 28.40),
        "mediant",
        Tolerance(STATED, 28.395, 28.405),
        "an independent implementation",
    ),
    _ratio(
        "greedy-above-optimum",
        "What is left to gain over the published baseline, as a ratio of pressures.",
        Published("none: no optimum was published"),
        Measure("ratio", ("PrismGreedy",)),
        Tolerance(OURS, high=1.30),
    ),
    _ratio(
        "multifit",
        "MULTIFIT, bisecting on the pressure with best fit decreasing, is nearly optimal.",
        Published("none"),
        Measure("ratio", ("Multifit",)),
        Tolerance(OURS, high=1.01),
    ),
    _ratio(
        "exact-policy",
        "ExactPacking is optimal on every instance.",
        Published("none"),
        Measure("max", ("ExactPacking",), field="ratio"),
        Tolerance(OURS, high=1.000001),
        "bound",
    ),
    _ratio(
        "no-voids",
        "No policy overfills a GPU, drops a model or beats the optimum.",
        Published("none"),
        Measure("voids"),
        Tolerance(OURS, high=0.0),
        "bound",
    ),
)
