"""Speed of the spot module, side by side with what one would use instead, in one run.

* the compiled world against the plain Python world of the tests, zone-ticks per second on one core;
* the learned lifetimes against lifelines' Nelson-Aalen;
* the optimum of 8 zones x 2,400 ticks; the whole study on two workers; start-up of the command.

Run: ``.venv/bin/python benchmarks/spot.py`` (a minute and a half). Bars: policies >= 200,000 (SkyNomad) and >= 1,000,000 (simple baselines)
zone-ticks/s, optimum <= 2 s, study <= 60 s, ``import cloudchamber`` < 0.1 s, ``chamber --help`` < 0.4 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.spot.worlds import ReplaySimulator

from cloudchamber import study
from cloudchamber.core.policy import clone
from cloudchamber.core.registry import load_study
from cloudchamber.core.results import Table
from cloudchamber.spot import DeadlineGuard, offline_optimum
from cloudchamber.spot.policies.lifetime import expected_life

REPEATS = 3


def timed(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median seconds of a call, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def policies(worlds: list, makers: dict) -> list[tuple[str, ...]]:
    """Zone-ticks per second of every policy, compiled world against plain Python world."""
    lines = []
    for name, make in makers.items():
        policy = make()
        ran = [world.simulator.run(clone(policy), np.random.default_rng(0), show_future=policy.clairvoyant) for world in worlds]
        zone_ticks = sum(len(run.state) * len(world.market.zones) for run, world in zip(ran, worlds, strict=True))

        def compiled(policy=policy) -> None:
            for world in worlds:
                world.simulator.run(clone(policy), np.random.default_rng(0), show_future=policy.clairvoyant)

        def plain(policy=policy) -> None:
            for world in worlds[:1]:
                guard = DeadlineGuard(clone(policy))
                guard.reset(world.spec, np.random.default_rng(0))
                ReplaySimulator(world.market, world.job, world.checkpoint_gb).run(guard)

        mine = zone_ticks / timed(compiled)
        if policy.clairvoyant:
            lines.append((name, f"{mine:,.0f}", "", ""))
            continue
        other = len(ran[0].state) * len(worlds[0].market.zones) / timed(plain)
        lines.append((name, f"{mine:,.0f}", f"{other:,.0f}", f"{mine / other:.1f}"))
    return lines


def lifetimes() -> tuple[str, ...]:
    """Expected life from 60 runs: ours against lifelines (whose own fit also makes tables and confidence intervals)."""
    from lifelines import NelsonAalenFitter

    rng = np.random.default_rng(0)
    lengths, events = np.sort(rng.exponential(3600, 60)), rng.random(60) < 0.7
    ours = timed(lambda: [expected_life(lengths, events, 0.0, 7200.0, 1.0) for _ in range(100)]) / 100
    theirs = timed(lambda: NelsonAalenFitter(nelson_aalen_smoothing=False).fit(lengths, events))
    return ("Nelson-Aalen of 60 runs", f"{ours * 1e6:.1f} µs", f"lifelines {theirs * 1e6:,.0f} µs", f"{theirs / ours:,.0f}")


def start_up(code: str, peer: str) -> tuple[float, float]:
    """Median seconds of a fresh interpreter running ours and the peer's, in turn, less that of an empty one."""
    seconds: dict[str, list[float]] = {code: [], peer: [], "pass": []}
    for _ in range(2 * REPEATS + 1):
        for each, found in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", each], check=True, stdout=subprocess.DEVNULL)
            found.append(time.perf_counter() - start)
    empty = statistics.median(seconds["pass"])
    return statistics.median(seconds[code]) - empty, statistics.median(seconds[peer]) - empty


def main() -> None:
    """Print every figure with its bar."""
    subject = load_study("spot")
    workload, note = subject.ready(subject.workloads()["h100-8z-tp2.0"])
    print(note or "real traces", file=sys.stderr)
    worlds = [workload.world(seed) for seed in range(4)]
    print(Table(("policy", "zone-ticks/s", "plain Python world", "ratio"), tuple(policies(worlds, dict(subject.policies())))), end="\n\n")

    world = worlds[0]
    optimum_s = timed(lambda: offline_optimum(world.market, world.job, checkpoint_gb=world.checkpoint_gb))
    begin = time.perf_counter()
    study("spot", n_jobs=2)
    study_s = time.perf_counter() - begin
    import_s, numpy_s = start_up("import cloudchamber", "import numpy")
    help_s, typer_s = start_up(
        "import sys; sys.argv = ['chamber', '--help']; from cloudchamber.cli import main; main()",
        "import typer; app = typer.Typer(); app.command()(lambda: None); app(args=['--help'])",
    )
    rows = (
        lifetimes(),
        ("optimum, 8 zones x 2,400 ticks", f"{optimum_s:.2f} s", "bar 2 s", f"{2 / optimum_s:.1f}"),
        ("whole study, two workers", f"{study_s:.1f} s", "bar 60 s", f"{60 / study_s:.1f}"),
        (
            "import cloudchamber",
            f"{import_s * 1e3:.0f} ms",
            f"import numpy {numpy_s * 1e3:.0f} ms (bar 100)",
            f"{numpy_s / max(import_s, 1e-4):.1f}",
        ),
        ("chamber --help", f"{help_s * 1e3:.0f} ms", f"an empty typer app {typer_s * 1e3:.0f} ms (bar 400)", f"{typer_s / help_s:.2f}"),
    )
    print(Table(("what", "ours", "against", "ratio"), rows))


if __name__ == "__main__":
    main()
