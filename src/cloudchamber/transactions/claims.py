"""The headline claims on transaction scheduling, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

BARS = "2026-11-22T09:10:00+00:00"  # the bars, older than the code
OURS = "2026-11-22T12:30:00+00:00"  # limits of our own
MAKESPAN = Metric("makespan_slots", "slots")
OPTIMAL = Source("Towards Optimal Transaction Scheduling", "VLDB 2024", "2024-08-01")
ADRS = Source("Barbarians at the Gate: How AI is Upending Systems Research", "arXiv", "2025-10-10")
PUBLIC = ("w1", "w2", "w3")
STUDY = ("chamber", "study", "transactions", "--json")
COMMON = ("--policy", "SMF", "--policy", "SMFAll", "--policy", "FIFO")
PAID_FOR = tuple(f"{name}-20m" for name in PUBLIC)  # with 20 million placements
PAID = (*STUDY, *(word for name in PAID_FOR for word in ("--workload", name)), "--policy", "LocalSearch", *COMMON)
RULES = (*STUDY, "--seeds", "20", "--policy", "Random", *COMMON)
SCALE = "simulated: the batches' own makespan model, no database; 100 transactions each"


def _claim(
    id: str,
    text: str,
    published: Published,
    measure: Measure,
    tolerance: Tolerance,
    workloads: tuple[str, ...],
    against: str,
    *,
    source: Source = ADRS,
    assessor: str = "threshold",
    reproduce: tuple[str, ...] = STUDY,
    scale: str = SCALE,
    generated: bool = False,
) -> Claim:
    return Claim(
        id=f"transactions-{id}",
        text=text,
        source=source,
        published=published,
        quantity=MAKESPAN,
        comparator=against,
        population=Population(scale, workloads, allows_generated=generated),
        tolerance=tolerance,
        measure=measure,
        kind="simulated",
        reproduce=reproduce,
        assessor=assessor,  # type: ignore[arg-type]
        limits=("own comparator", "tuned on test", "author-run"),
    )


def _figure(workload: str, policy: str, number: float, spread: float) -> Claim:
    """One known figure of one rule on one batch."""
    return _claim(
        f"{workload}-{policy.lower()}",
        f"The makespan of {policy} on {workload}.",
        Published(f"{number:g} slots by the public benchmark's own simulator", number),
        Measure("mean", (policy,)),
        Tolerance(OURS, number - spread, number + spread),
        (workload,),
        "the benchmark's simulator",
        assessor="equivalence",
        reproduce=RULES,
    )


def _near_bound(workload: str, limit: float) -> Claim:
    return _claim(
        f"{workload}-bound",
        f"On {workload}, LocalSearch is near what no order can beat.",
        Published("none: exact makespans were not published"),
        Measure("ratio", ("LocalSearch",)),
        Tolerance(OURS, high=limit),
        (f"{workload}-20m",),
        "the largest of our proven lower bounds",
        reproduce=PAID,
    )


CLAIMS = (
    _figure("w1", "FIFO", 452, 0.5),
    _figure("w2", "FIFO", 38, 0.5),
    _figure("w3", "FIFO", 47, 0.5),
    _figure("w1", "SMF", 252, 8),
    _figure("w2", "SMF", 55, 3),
    _figure("w3", "SMF", 54, 4),
    _figure("w1", "SMFAll", 220, 6),
    _claim(
        "search-against-smf",
        "A search that is given seconds beats the published greedy by a third, summed over the three batches.",
        Published("evolved orders match or beat the published policy; exact makespans not found", 0.62),
        Measure("ratio", ("LocalSearch",), over="SMF"),
        Tolerance(BARS, high=0.66),
        PAID_FOR,
        "SMF with 10 candidates",
        reproduce=PAID,
    ),
    *(
        _claim(
            f"search-against-{over.lower()}",
            f"On every batch a search is at least as good as {over}.",
            Published("none"),
            Measure("ratio", ("LocalSearch",), over=over, across="max"),
            Tolerance(BARS, high=1.0),
            PAID_FOR,
            over,
            reproduce=PAID,
        )
        for over in ("FIFO", "SMFAll")
    ),
    _claim(
        "smf-against-random",
        "On the key-value batch, greedy with ten candidates is far better than a random order.",
        Published("up to 3.9x throughput in a database"),
        Measure("ratio", ("SMF",), over="Random"),
        Tolerance(BARS, high=0.62),
        ("w1",),
        "random orders",
        source=OPTIMAL,
        reproduce=RULES,
    ),
    _claim(
        "smf-loses-on-w2",
        "On the TPC-C shaped batch, greedy is clearly worse than the order of arrival.",
        Published("none"),
        Measure("ratio", ("SMF",), over="FIFO"),
        Tolerance(OURS, low=1.2),
        ("w2",),
        "FIFO",
        reproduce=RULES,
    ),
    *(_near_bound(workload, limit) for workload, limit in (("w1", 1.35), ("w2", 1.001), ("w3", 1.5))),
    _claim(
        "optimum-of-eight",
        "LocalSearch reaches the proven optimum of nearly every batch of eight.",
        Published("none: a check of our own"),
        Measure("ratio", ("LocalSearch",)),
        Tolerance(OURS, high=1.005),
        ("tiny",),
        "the optimum proven by CP-SAT, 100 batches",
        reproduce=(*STUDY, "--workload", "tiny", "--policy", "LocalSearch"),
        scale="simulated: 100 generated batches of 8 transactions with 6 accesses on 6 keys",
        generated=True,
    ),
    _claim(
        "never-below-bound",
        "No policy leaves out or repeats a transaction, or beats a proven bound.",
        Published("none; the public evaluator trusts the makespan that the candidate reports", 0.0),
        Measure("voids"),
        Tolerance(BARS, high=0.0),
        PUBLIC,
        "the world's check of every order",
        assessor="bound",
    ),
    Claim(
        id="transactions-database",
        text="In a database, scheduling raises throughput.",
        source=OPTIMAL,
        published=Published("up to 3.9x throughput and 3.2x lower tail latency in a modified RocksDB"),
        quantity=MAKESPAN,
        comparator="the database without a scheduler",
        population=Population("a modified RocksDB, which is not public", PUBLIC, hardware="servers"),
        tolerance=Tolerance(BARS, high=1.0),
        measure=Measure("ratio", ("SMF",), over="FIFO"),
        kind="reported",
        reproduce=(),
    ),
)
