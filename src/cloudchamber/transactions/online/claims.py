"""The headline claims on online transaction scheduling, and how each is reproduced here."""

from __future__ import annotations

from cloudchamber.core.claims import Claim, Kind, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.outcome import Metric

BARS = "2026-11-22T09:10:00+00:00"  # the bars, older than the code
OURS = "2026-11-22T13:05:00+00:00"  # limits of our own
THROUGHPUT = Metric("throughput_tps", "1/s", "max")
ABORTS = Metric("aborts_per_commit", "1")
OPTIMAL = Source("Towards Optimal Transaction Scheduling", "VLDB 2024", "2024-08-01")
STUDY = ("chamber", "study", "transactions.online", "--json", "--policy", "SMFOnline", "--policy", "FIFOOnline")
RUN = ("chamber", "run", "transactions", "--json", "--seeds", "5")
NETWORK = (*RUN, "--theta", "1.1", "--set", "service_s=0.002")
HOT, FLAT = ("zipf1.1-mvtso", "zipf1.1-mvschedo"), ("zipf0-mvtso", "zipf0-mvschedo")


def _claim(
    id: str,
    text: str,
    quantity: Metric,
    tolerance: Tolerance,
    workloads: tuple[str, ...],
    *,
    kind: Kind = "simulated",
    against: str = "FIFO on the same store",
    published: str = "up to 3.9x throughput in a modified RocksDB",
    reproduce: tuple[str, ...] = STUDY,
    across: str = "pool",
    miss: str = "",
) -> Claim:
    access = "2 ms" if reproduce is NETWORK else "200 µs"
    where = "coroutines in one Python process" if kind == "measured" else "simulated: the store on a clock of events"
    return Claim(
        id=f"transactions-online-{id}",
        text=text,
        source=OPTIMAL,
        published=Published(published),
        quantity=quantity,
        comparator=against,
        population=Population(
            f"{where}; 16 workers, {access} an access, 8 accesses, 1,000 keys, half writes", workloads, allows_generated=True
        ),
        tolerance=tolerance,
        measure=Measure("ratio", ("SMFOnline",), over="FIFOOnline", across=across),  # type: ignore[arg-type]
        kind=kind,
        reproduce=reproduce,
        limits=("toy scale", "own comparator", "tuned on test", "author-run"),
        miss=miss,
    )


CLAIMS = (
    _claim(
        "throughput",
        "Under contention, a store whose entrance is scheduled commits more than one that takes the order of arrival.",
        THROUGHPUT,
        Tolerance(BARS, low=1.5),
        ("zipf1.1",),
        miss="in Python, deciding who enters costs about as much as the accesses it saves",
        kind="measured",
        against="FIFO under MVTSO; SMFOnline runs under MVSchedO",
        reproduce=RUN,
    ),
    _claim(
        "aborts",
        "and aborts far less.",
        ABORTS,
        Tolerance(BARS, high=0.5),
        ("zipf1.1",),
        kind="measured",
        against="FIFO under MVTSO; SMFOnline runs under MVSchedO",
        published="none",
        reproduce=RUN,
    ),
    _claim(
        "no-contention",
        "Without contention scheduling costs next to nothing.",
        THROUGHPUT,
        Tolerance(BARS, low=0.95),
        ("zipf0",),
        kind="measured",
        against="FIFO under MVTSO; SMFOnline runs under MVSchedO",
        published="none",
        reproduce=RUN,
        miss="in Python, deciding takes a share of accesses of 200 µs that is not next to nothing, more so on a busy machine",
    ),
    _claim(
        "throughput-network",
        "With accesses as long as over a network, a scheduled entrance commits more.",
        THROUGHPUT,
        Tolerance(BARS, low=1.5),
        ("zipf1.1",),
        miss="the gain is there, but with deciding in Python short of the bar",
        kind="measured",
        against="FIFO under MVTSO; SMFOnline runs under MVSchedO",
        reproduce=NETWORK,
    ),
    _claim(
        "simulated-throughput",
        "On the simulated clock the gain holds under either kind of timestamp ordering.",
        THROUGHPUT,
        Tolerance(OURS, low=1.25),
        HOT,
        across="min",
    ),
    _claim(
        "simulated-no-contention",
        "On the simulated clock nothing is lost without contention.",
        THROUGHPUT,
        Tolerance(OURS, low=0.95),
        FLAT,
        published="none",
        across="min",
    ),
)
