"""``chamber run spot``: run a real job under a policy, on this machine's local cloud or on the clouds behind SkyPilot."""

from __future__ import annotations

import json as jsonlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .clouds.localcloud import LocalCloud
    from .clouds.skypilot import SkyPilotCloud
    from .runtime import SpotRun
    from .workloads import World

LABELS = {
    "finished": "finished",
    "late": "late",
    "total_usd": "cost (USD)",
    "spot_usd": "  spot",
    "on_demand_usd": "  on-demand",
    "egress_usd": "  egress",
    "probe_usd": "  probes",
    "launches": "launches",
    "preemptions": "preemptions",
    "migrations": "migrations",
    "failed_launches": "refused launches",
    "deadline_slack_s": "deadline slack (s)",
    "faults": "faults survived",
    "result": "last checkpoint",
    "state": "state",
}
STATE = Path(".chamber/spot")
RUN_S = 365 * 86400.0  # a real run lasts days, not the minutes of a trial; each answer has its usual time


class Where(StrEnum):
    """Clouds that ``chamber run spot`` can drive."""

    local = "local"
    skypilot = "skypilot"


def run(
    command: Annotated[
        list[str],
        typer.Argument(
            help="The job, after `--`: keeps its state in $CHAMBER_CHECKPOINT_DIR, and the "
            "finished share of its work, 0 to 1, in `progress` there.",
            show_default=False,
        ),
    ],
    policy: Annotated[str, typer.Option(help="NAME, 'NAME(key=value)' or file.py:Class.")] = "SkyNomad",
    workload: Annotated[str, typer.Option(help="Market and job; `chamber list spot` names them.")] = "smoke",
    trace: Annotated[Path | None, typer.Option(help="Your own trace instead.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Parameter of the workload; repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which start in the market.")] = 0,
    speedup: Annotated[float, typer.Option(help="Seconds of the market per real second (local cloud).")] = 600.0,
    state: Annotated[Path, typer.Option(help="Folder of the run's state; the same command on it goes on after a crash.")] = STATE,
    s3_endpoint: Annotated[str | None, typer.Option(help="S3 service for the checkpoints. Default: a local one.")] = None,
    cloud: Annotated[Where, typer.Option(help="Where instances run.")] = Where.local,
    jail: Annotated[str, typer.Option(help="Walls around a policy file: auto, namespace, landlock, subprocess, none.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output, and nothing else.")] = False,
) -> None:
    """Run a job with a deadline on spot instances, real processes or real machines, under the policy that was studied."""
    from cloudchamber.core.errors import CandidateError
    from cloudchamber.core.registry import load_policy
    from cloudchamber.jail.limits import Limits

    from .runtime import JobFailed, SpotRunner
    from .study import SpotStudy

    study = SpotStudy()
    make = load_policy(study, policy, jail, Limits(cpu_s=RUN_S, wall_s=RUN_S))
    if note := getattr(make, "note", ""):
        typer.echo(f"chamber: note: {note}", err=True)
    world = _world(study, workload, trace, settings or [], seed, is_real=cloud is Where.skypilot)
    opened = _local(world, command, state, speedup, s3_endpoint) if cloud is Where.local else _skypilot(world, command, state, s3_endpoint)
    if cloud is Where.local:
        typer.echo(_pace(world, speedup), err=True)
    try:
        with opened as there:
            result = SpotRunner(make(), there, world.spec, state, seed=seed, margin_s=world.spec.tick_s).run()
    except (CandidateError, JobFailed) as error:
        typer.echo(f"chamber: {error}", err=True)
        raise typer.Exit(1) from None
    _show(result, state, as_json=json)
    if result.is_late:
        typer.echo("chamber: late: the job is slower than the workload says; lower --speedup, or give it more with --set work_h.", err=True)
        raise typer.Exit(1)


def _pace(world: World, speedup: float) -> str:
    job = world.spec.job
    return (
        f"chamber: {job.work_s / 3600:g} h of work, deadline after {job.deadline_s / 3600:g} h; at {speedup:g} times real time the job "
        f"should take about {job.work_s / speedup:.0f} s of its own and has {job.deadline_s / speedup:.0f} s."
    )


def _world(study: Any, workload: str, trace: Path | None, settings: list[str], seed: int, *, is_real: bool) -> World:
    from cloudchamber.core.errors import InputError, unknown
    from cloudchamber.core.study import settings_of

    params = settings_of(settings)
    if trace is not None:
        chosen = study.workload(trace, **params)
    else:
        known = study.workloads()
        if workload not in known:
            raise unknown("spot workload", workload, known)
        chosen = study.adjusted(known[workload], **params) if params else known[workload]
    if is_real and chosen.is_generated:
        raise InputError(
            f"{chosen.name!r} is a generated market, whose zones do not exist; give one of real zones with --workload or --trace."
        )
    ready, note = study.ready(chosen)
    if note:
        typer.echo(f"chamber: note: {note}", err=True)
    return ready.world(seed)  # type: ignore[no-any-return]


def _local(world: World, command: list[str], state: Path, speedup: float, s3_endpoint: str | None) -> LocalCloud:
    from .clouds.localcloud import LocalCloud, Pace

    return LocalCloud(world.market, world.spec, tuple(command), state / "cloud", pace=Pace(speedup), endpoint_url=s3_endpoint)


def _skypilot(world: World, command: list[str], state: Path, s3_endpoint: str | None) -> SkyPilotCloud:
    from cloudchamber.core.errors import InputError

    from .clouds.skypilot import SkyPilotCloud

    if s3_endpoint is not None:
        raise InputError("--s3-endpoint belongs to --cloud local; on SkyPilot the checkpoints lie in S3 itself.")
    typer.echo("chamber: note: spot prices are those at the start of the workload, not live ones.", err=True)
    return SkyPilotCloud(world.spec, tuple(command), state / "cloud", lambda: world.market.spot_usd_h[0])


def _show(result: SpotRun, state: Path, *, as_json: bool) -> None:
    facts = {**result.to_dict(), "state": str(state)}
    if as_json:
        sys.stdout.write(jsonlib.dumps(facts) + "\n")
        return
    for key, label in LABELS.items():
        typer.echo(f"{label:<20}{_text(facts[key])}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{count} {kind}" for kind, count in value.items()) or "none"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
