"""The headline claims on expert balancing, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

BARS = "2026-11-22T12:17:00+00:00"  # the bars, older than the code
OURS = "2026-11-22T12:55:00+00:00"  # limits of our own
BALANCE = Metric("balancedness", "1", "max", high=1 + 1e-9)
MOVED, TOTAL, PLAN = Metric("moved_gb", "GB"), Metric("total_s", "s"), Metric("plan_s", "s", is_timed=True)
EPLB = Source("deepseek-ai/EPLB", "GitHub", "2025-02-27")
ADRS = Source("Barbarians at the Gate: How AI is Upending Systems Research", "arXiv 2510.06189", "2025-10-10")
LARGE, SKEW, LONG, SMALL = "v3-58x256", "v3-58x256-skew", "v3-58x256-long", "small-16e"
USUAL = ("drift-64e", "skew-64e", "regime-64e", "daynight-64e", "sparse-64e", SMALL)
STUDY = ("chamber", "study", "moe.balance", "--json")
ON_LARGE = (*STUDY, "--workload", LARGE, "--workload", SKEW, "--seeds", "6")
ON_LONG = (*STUDY, "--workload", LONG)
CLOCK = ("python", "benchmarks/moe_balance.py", "--json")
SIZE = "58 layers of 256 experts in 288 slots on 32 GPUs"


def _simulated(
    id: str,
    text: str,
    published: Published,
    measure: Measure,
    tolerance: Tolerance,
    workloads: tuple[str, ...],
    reproduce: tuple[str, ...],
    *,
    against: str,
    quantity: Metric = BALANCE,
    source: Source = EPLB,
    assessor: str = "threshold",
) -> Claim:
    what = SIZE if reproduce is not STUDY else "4 layers of 64 experts in 80 slots on 8 GPUs, or 2 of 16 in 20 on 4"
    return Claim(
        id=f"moe-balance-{id}",
        text=text,
        source=source,
        published=published,
        quantity=quantity,
        comparator=against,
        population=Population(f"simulated: generated loads, {what}", workloads, allows_generated=True),
        tolerance=tolerance,
        measure=measure,
        kind="simulated",
        reproduce=reproduce,
        assessor=assessor,  # type: ignore[arg-type]
        limits=("own comparator", "author-run"),
    )


def _timed(id: str, text: str, published: Published, policy: str, high: float, stated: str = BARS) -> Claim:
    return Claim(
        id=f"moe-balance-{id}",
        text=text,
        source=ADRS,
        published=published,
        quantity=PLAN,
        comparator="the reference algorithm on tensors, item by item, interleaved in the same run",
        population=Population(f"measured: one core, {SIZE}, 5 loads", (LARGE,), hardware="one CPU core", allows_generated=True),
        tolerance=Tolerance(stated, high=high),
        measure=Measure("ratio", (policy,), over="reference, tensors, global"),
        kind="measured",
        reproduce=CLOCK,
        limits=("other hardware", "own comparator", "author-run"),
    )


CLAIMS = (
    _timed(
        "zigzag-plan-time",
        "The zigzag deal plans in a hundredth of the reference's time.",
        Published("92x faster than the reference Python", 1 / 92),
        "Zigzag",
        1 / 100,
    ),
    _timed(
        "heap-plan-time", "With heaps the reference's own plan takes a fortieth of its time.", Published("none"), "LPTHeap-global", 1 / 40
    ),
    _simulated(
        "zigzag-balance",
        "The zigzag deal balances as well as the greedy.",
        Published("balance unchanged", 1.0),
        Measure("ratio", ("Zigzag",), over="GreedyEPLB-global"),
        Tolerance(BARS, low=0.985),
        (LARGE,),
        ON_LARGE,
        against="GreedyEPLB('global')",
        source=ADRS,
    ),
    _simulated(
        "ranking",
        "One group and node balances best, then hierarchically, then not at all.",
        Published("none in numbers"),
        Measure("lead", ("GreedyEPLB-global", "GreedyEPLB", "Static"), across="min"),
        Tolerance(BARS, low=0.0),
        (LARGE, SKEW),
        ON_LARGE,
        against="each other, judged on the next window",
        assessor="ordering",
    ),
    _simulated(
        "local-search",
        "Local search balances the next window no worse than the greedy where skew is hard.",
        Published("none: our own"),
        Measure("lead", ("LocalSearch", "GreedyEPLB-global")),
        Tolerance(OURS, low=0.0),
        (SKEW,),
        ON_LARGE,
        against="GreedyEPLB('global')",
        assessor="ordering",
    ),
    _simulated(
        "incremental-balance",
        "A plan that changes little is nearly as balanced as a fresh one.",
        Published("none: requested in vLLM issues"),
        Measure("ratio", ("Incremental",), over="GreedyEPLB-global"),
        Tolerance(BARS, low=0.95),
        (LONG,),
        ON_LONG,
        against="GreedyEPLB('global') over 50 windows with drift",
    ),
    _simulated(
        "incremental-moves",
        "It moves a small part of the weights.",
        Published("none: requested in vLLM issues"),
        Measure("ratio", ("Incremental",), over="GreedyEPLB-global"),
        Tolerance(BARS, high=0.15),
        (LONG,),
        ON_LONG,
        against="GreedyEPLB('global') over 50 windows with drift",
        quantity=MOVED,
    ),
    _simulated(
        "incremental-total",
        "Steps and moves together take least time, at 10 GB/s to each GPU.",
        Published("none: requested in vLLM issues"),
        Measure("lead", ("Incremental", "LocalSearch")),
        Tolerance(BARS, low=0.0),
        (LONG,),
        ON_LONG,
        against="LocalSearch, which takes least of all others, over 50 windows with drift",
        quantity=TOTAL,
        assessor="ordering",
    ),
    _simulated(
        "exact-gap",
        "How far the greedy is from plans that know the next window, where those can be found.",
        Published("none"),
        Measure("ratio", ("GreedyEPLB-global",)),
        Tolerance(OURS, high=1.10),
        (SMALL,),
        STUDY,
        against="the exact optimum of every window",
    ),
    _simulated(
        "never-void",
        "No policy gives an invalid plan or beats the bound.",
        Published("none"),
        Measure("voids"),
        Tolerance(BARS, high=0.0),
        USUAL,
        STUDY,
        against="the checks of every plan, and the bound of every layer",
        assessor="bound",
    ),
    Claim(
        id="moe-balance-industrial",
        text="The zigzag deal is faster than an industrial baseline that was not disclosed.",
        source=ADRS,
        published=Published("5.0x faster than an undisclosed industrial baseline"),
        quantity=PLAN,
        comparator="an implementation that nobody outside can run",
        population=Population("the authors' own cluster and load history", (LARGE,), hardware="GPU servers"),
        tolerance=Tolerance(BARS, high=1 / 5),
        measure=Measure("ratio", ("Zigzag",), over="the undisclosed baseline"),
        kind="reported",
        reproduce=(),
    ),
)
