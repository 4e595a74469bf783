"""``chamber run transactions``: the real store in real time, scheduled and not."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Annotated, Any

import typer


def run(
    policy: Annotated[str, typer.Option(help="NAME, 'NAME(key=value)' or file.py:Class.")] = "SMFOnline",
    protocol: Annotated[str, typer.Option(help="The store's under that policy: mvschedo, mvtso, 2pl or occ.")] = "mvschedo",
    theta: Annotated[list[float] | None, typer.Option(help="Zipf exponent of the keys; repeatable. Default: 1.1 and 0.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Parameter of the stream; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Streams of each kind.")] = 3,
    threads: Annotated[bool, typer.Option("--threads", help="One thread a worker, instead of coroutines of one thread.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per run on standard output, and nothing else.")] = False,
) -> None:
    """Run streams of conflicting transactions through a real in-process store, timed, with arrival order under MVTSO beside it."""
    from dataclasses import replace

    from cloudchamber.core.errors import InputError
    from cloudchamber.core.registry import load_policy
    from cloudchamber.core.results import Table

    from .policies.fifo_online import FIFOOnline
    from .store import PROTOCOLS
    from .study import OnlineStudy, OnlineWorkload

    study = OnlineStudy()
    make = load_policy(study, policy)
    if protocol not in PROTOCOLS:
        raise InputError(f"--protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    pairs = dict(each.partition("=")[::2] for each in settings or [])
    rows: list[dict[str, Any]] = []
    for each in theta or [1.1, 0.0]:
        workload = replace(study.adjusted(OnlineWorkload(name=f"zipf{each:g}", is_generated=True), **pairs), theta=each)
        for seed in range(seeds):  # the two in turn, so that a busy machine is busy for both
            sides = [("FIFOOnline", FIFOOnline, replace(workload, protocol="mvtso")), (policy, make, replace(workload, protocol=protocol))]
            for name, maker, store in sides if seed % 2 else reversed(sides):
                rows.append(
                    _timed(
                        study,
                        name if name != policy or policy != "FIFOOnline" else f"FIFOOnline@{protocol}",
                        maker,
                        store,
                        seed,
                        threads=threads,
                    )
                )
                if json:
                    sys.stdout.write(jsonlib.dumps(rows[-1]) + "\n")
    if not json:
        shown = ("workload", "policy", "seed", "protocol", "throughput_tps", "ceiling_tps", "aborts_per_commit", "p99_latency_ms")
        lines = [tuple(f"{row[key]:.4g}" if isinstance(row[key], float) else str(row[key]) for key in shown) for row in rows]
        typer.echo(str(Table(shown, tuple(lines))))
        typer.echo("ceiling: the same accesses by the same workers, none of them on a shared key.")


def _timed(study: Any, name: str, make: Any, workload: Any, seed: int, *, threads: bool) -> dict[str, Any]:
    """One run as a row, with the throughput of the same accesses without any conflict."""
    from cloudchamber.core.study import rng_of

    from .policies.fifo_online import FIFOOnline
    from .runtime import run_coroutines, run_threads
    from .study import outcome_of
    from .world import Call, World

    drive = run_threads if threads else run_coroutines
    world = workload.world(seed)
    policy = make()
    policy.reset(world.spec, rng_of(study.name, workload.name, seed))
    outcome = outcome_of(world, drive(world, policy))
    own = [
        Call(call.number, call.kind, call.argument, tuple((1000 * call.number + i, writes) for i, (_, writes) in enumerate(call.accesses)))
        for call in workload.calls(seed)
    ]
    free = World(own, world.spec, "mvtso")
    plain = FIFOOnline()
    plain.reset(world.spec, rng_of(study.name, workload.name, seed))
    ceiling = outcome_of(free, drive(free, plain)).metrics["throughput_tps"]
    return {
        "study": study.name,
        "workload": workload.name,
        "policy": name,
        "seed": seed,
        **outcome.metrics,
        "protocol": workload.protocol,
        "ceiling_tps": ceiling,
        "void": "; ".join(outcome.violations) or None,
        "generated": True,
        "evidence": "measured",
    }
