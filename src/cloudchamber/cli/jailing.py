"""``chamber jail check``: which walls stand on this machine, and which level of jail it gives."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cloudchamber.jail.check import Check

MET = 66  # characters of what the probe met


def check(
    json: Annotated[bool, typer.Option("--json", help="One JSON object per level on standard output, and nothing else.")] = False,
) -> None:
    """Run a policy against every wall of every level: what stands here, what does not, and which level `auto` takes."""
    from cloudchamber.core.errors import JailUnavailable
    from cloudchamber.jail.check import check as probe
    from cloudchamber.jail.levels import LEVELS, best_level
    from cloudchamber.jail.memory import how_bounded

    memory = how_bounded()
    found = [probe(level) for level in LEVELS[:3]]
    try:
        auto, problem = str(best_level()), ""
    except JailUnavailable as error:
        auto, problem = "", str(error)
    for each in found:
        if json:
            typer.echo(jsonlib.dumps(_facts(each, auto) | {"memory": memory}))
        else:
            typer.echo(f"{_shown(each)}\n")
    if not json:
        typer.echo(f"memory: {memory}")
    holed = [each.level for each in found if each.level == auto and each.holes]
    if not json and auto:
        why = "the strongest that starts here" if auto == LEVELS[0] else f"{LEVELS[0]} does not start here: {found[0].problem}"
        typer.echo(f"auto: {auto} ({why})")
    if problem:
        typer.echo(f"chamber: {problem}", err=True)
    for level in holed:
        typer.echo(f"chamber: level {level!r} starts here, but not all of its walls stand; please report it.", err=True)
    if problem or holed:
        raise typer.Exit(1)


def _facts(found: Check, auto: str) -> dict[str, object]:
    return {
        "level": found.level,
        "auto": found.level == auto,
        "problem": found.problem,
        "walls": [{"attempt": wall.name, "stands": wall.stands, "met": wall.met} for wall in found.walls],
    }


def _shown(found: Check) -> str:
    from cloudchamber.core.results import Table
    from cloudchamber.jail.check import ATTEMPTS

    if found.problem is not None:
        return f"{found.level}: not to be had here: {found.problem}"
    rows = tuple((ATTEMPTS[wall.name], "stopped" if wall.stands else "GOT THROUGH", _cut(wall.met)) for wall in found.walls)
    title = f"{found.level}: {sum(wall.stands for wall in found.walls)} of {len(rows)} attempts stopped"
    return str(Table(("a policy that ...", "", "met"), rows, title))


def _cut(text: str) -> str:
    return text if len(text) <= MET else text[: MET - 1] + "…"
