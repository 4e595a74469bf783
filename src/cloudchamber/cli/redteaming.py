"""``chamber evolve red-team``: every known way of beating an evaluator, tried on a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cloudchamber.evolve.redteam import Row


def red_team_command(
    name: Annotated[str, typer.Argument(help="Study to attack; `chamber list` names them.")],
    attack: Annotated[list[str] | None, typer.Option(help="Attack, or the beginning of its name; repeatable. Default: all.")] = None,
    jail: Annotated[str, typer.Option(help="Walls around the attackers: auto, namespace, landlock, subprocess.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per attack on standard output, and nothing else.")] = False,
) -> None:
    """Attack a study's verifier and the jail; exit code 0 only if no attack gains anything."""
    from cloudchamber.core.registry import load_study
    from cloudchamber.evolve.attacks import ITEMS
    from cloudchamber.evolve.redteam import red_team

    found = red_team(load_study(name), jail, attack, None if json else _show)
    if json:
        typer.echo(found.to_json(), nl=False)
    else:
        typer.echo(found.table())
        for item, why in found.not_applicable.items():
            typer.echo(f"  {item} ({ITEMS[item]}) not applicable: {why}")
    if found.gains:
        typer.echo(f"chamber: {len(found.gains)} of {len(found.rows)} attacks gained something.", err=True)
        raise typer.Exit(1)


def _show(row: Row) -> None:
    if row.verdict == "gain":
        typer.echo(f"chamber: {row.attack} ({row.what}) gains: {row.reason}", err=True)
