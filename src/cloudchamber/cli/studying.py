"""``chamber study``: policies x workloads x seeds, as a table, rows of JSON, or a report."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from cloudchamber.core.results import Results
    from cloudchamber.core.study import Study, Workload


def study(
    name: Annotated[str, typer.Argument(help="Study to run; `chamber list` names them.")],
    policy: Annotated[list[str] | None, typer.Option(help="NAME, 'NAME(key=value)' or file.py:Class; repeatable. Default: all.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help="Workload; repeatable. Default: all that are not optional.")] = None,
    trace: Annotated[list[Path] | None, typer.Option(help="Your own trace; repeatable.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Parameter of the workloads; repeatable.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trials per workload. Default: the workload's own number.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes; -1 uses every core. Results do not depend on it.")] = -1,
    backend: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    jail: Annotated[str, typer.Option(help="Walls around policy files: auto, namespace, landlock, subprocess, none.")] = "auto",
    report: Annotated[Path | None, typer.Option(help="Write the HTML report here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per trial on standard output, and nothing else.")] = False,
) -> None:
    """Every known policy, the baselines and the optimum, on real traces or yours."""
    from cloudchamber.core import parallel
    from cloudchamber.core.registry import load_study
    from cloudchamber.core.report import check_place
    from cloudchamber.core.study import settings_of

    out = _own_stdout() if json else None
    subject = load_study(name)
    if report is not None:
        check_place(report)  # before the run, not after
    chosen = _workloads(subject, workload or [], trace or [], settings_of(settings or []))
    results = parallel.study(
        subject,
        policy,
        chosen,
        seeds,
        n_jobs=jobs,
        backend=backend,  # type: ignore[arg-type]
        jail=jail,
        progress=True,
    )
    results = replace(results, command=("chamber", *sys.argv[1:]))
    for note in results.notes:
        typer.echo(f"chamber: note: {note}", err=True)
    if out is None:
        _print(results)
    else:
        with out as rows:
            rows.write(results.to_json())
    if report is not None:
        typer.echo(f"Report: {results.report(report)}", err=json)
    void = [trial for trial in results.trials if trial.outcome.is_void]
    for trial in void[:3]:
        typer.echo(f"chamber: {trial.policy} on {trial.workload}, seed {trial.seed}: {trial.outcome.feedback}", err=True)
    if policy and void:
        raise typer.Exit(1)


def _print(results: Results) -> None:
    typer.echo(str(results.table()))
    for note in results.study.notes:
        typer.echo(note)


def _own_stdout() -> TextIO:
    """Take standard output for the rows alone; whatever policies print, here or in workers, goes to standard error."""
    if sys.stdout is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    try:
        rows = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), 1)
    except (OSError, ValueError, io.UnsupportedOperation):  # not a real file, as in a notebook
        rows = contextlib.nullcontext(sys.stdout)  # type: ignore[assignment]
    sys.stdout = sys.stderr
    return rows


def _workloads(subject: Study, names: list[str], traces: list[Path], params: dict[str, str]) -> list[Workload] | None:
    """The workloads to run; None means the study's default."""
    from cloudchamber.core.errors import InputError, unknown

    known = subject.workloads()
    for name in names:
        if name not in known:
            raise unknown(f"{subject.name} workload", name, known)
    own: list[Workload] = [subject.workload(path, **params) for path in traces]
    if not names and not traces:
        if not params:
            return None
        names = [each.name for each in known.values() if not each.is_optional]
    if names and traces and params:
        raise InputError("--set goes to either --workload or --trace; run them one after the other.")
    return [*(_adjusted(subject, known[name], params) for name in names), *own]


def _adjusted(subject: Study, workload: Workload, params: dict[str, str]) -> Workload:
    """A named workload that was changed says so in its name."""
    if not params:
        return workload
    changes = ",".join(f"{key}={value}" for key, value in params.items())
    changed: Any = subject.adjusted(workload, **params)
    return replace(changed, name=f"{workload.name}[{changes}]")  # type: ignore[no-any-return]
