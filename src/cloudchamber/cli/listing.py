"""``chamber list``: every study, its policies, workloads, systems and papers."""

from __future__ import annotations

from typing import Annotated

import typer


def list_(
    name: Annotated[str | None, typer.Argument(help="Only this study, with its workloads and metrics.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per study.")] = False,
) -> None:
    """Every study, its policies, its systems and papers."""
    from json import dumps

    from cloudchamber.core.registry import load_study, loadable_studies

    studies, errors = ([load_study(name)], []) if name else loadable_studies()
    for error in errors:
        typer.echo(f"chamber: {error}", err=True)
    for study in studies:
        workloads = study.workloads()
        if json:
            typer.echo(
                dumps(
                    {
                        "study": study.name,
                        "title": study.title,
                        "policies": list(study.policies()),
                        "workloads": list(workloads),
                        "metrics": [metric.name for metric in study.metrics],
                        "systems": list(study.systems),
                        "papers": list(study.papers),
                    }
                )
            )
            continue
        typer.echo(f"{study.name}: {study.title}")
        typer.echo(f"  systems    {', '.join(study.systems)}")
        typer.echo(f"  policies   {', '.join(study.policies())}")
        usual = [each.name for each in workloads.values() if not each.is_optional]
        typer.echo(f"  workloads  {', '.join(usual)}" + (f" ({len(workloads) - len(usual)} optional)" if not name else ""))
        if name:
            typer.echo(f"  optional   {', '.join(each.name for each in workloads.values() if each.is_optional)}")
            for each in workloads.values():
                typer.echo(f"  {each.name}: {each.summary}")
            typer.echo(f"  metrics    {', '.join(f'{each.name} [{each.unit}]' for each in study.metrics)}")
        for paper in study.papers:
            typer.echo(f"  paper      {paper}")
