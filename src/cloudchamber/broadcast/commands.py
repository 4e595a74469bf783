"""``chamber run broadcast``: relay real bytes along a policy's trees, between processes on this machine."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

LABELS = {
    "predicted_s": "predicted (s)",
    "measured_s": "measured (s)",
    "ratio": "measured / predicted",
    "regions": "regions (processes)",
    "links": "links (connections)",
    "bytes_sent": "bytes sent",
    "cost_usd": "bill in full size (USD)",
}


def run(
    policy: Annotated[str, typer.Option(help="NAME, 'NAME(key=value)' or file.py:Class.")] = "TreeSearch",
    workload: Annotated[
        str, typer.Option(help="Network and job; `chamber list broadcast` names them. Its links are shared here.")
    ] = "smoke",
    trace: Annotated[Path | None, typer.Option(help="Your own folder of grids and jobs instead.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which job.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long it should take: the scale of all rates.")] = 3.0,
    megabytes: Annotated[float, typer.Option(help="What is really sent instead of the job's volume.")] = 16.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output, and nothing else.")] = False,
) -> None:
    """Relay real bytes along the policy's trees over TCP, links capped at their scaled flow, and time it against the simulator."""
    from cloudchamber.core.errors import CandidateError, unknown
    from cloudchamber.core.registry import load_policy

    from .runtime import BroadcastFailed, relay
    from .study import BroadcastStudy

    study = BroadcastStudy()
    make = load_policy(study, policy)
    known = study.workloads()
    if trace is None and workload not in known:
        raise unknown("broadcast workload", workload, known)
    chosen = study.workload(trace, shared=True) if trace is not None else study.adjusted(known[workload], shared=True)
    ready, note = study.ready(chosen)
    if note:
        typer.echo(f"chamber: note: {note}", err=True)
    try:
        result = relay(make(), *ready.world(seed), seconds=seconds, megabytes=megabytes, seed=seed)
    except (BroadcastFailed, CandidateError) as error:
        typer.echo(f"chamber: {error}", err=True)
        raise typer.Exit(1) from None
    named = {"study": "broadcast", "workload": ready.name, "policy": policy, "seed": seed, "evidence": "measured"}
    facts = {**named, "generated": ready.is_generated, "void": None, **result.to_dict()}
    if json:
        sys.stdout.write(jsonlib.dumps(facts) + "\n")
        return
    for key, label in LABELS.items():
        typer.echo(f"{label:<26}{facts[key]:.3f}" if isinstance(facts[key], float) else f"{label:<26}{facts[key]:,}")
