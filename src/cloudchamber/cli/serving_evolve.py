"""``chamber evolve mcp`` and ``chamber evolve dashboard``: a run served to a coding agent, and shown in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def mcp_command(
    study: Annotated[str | None, typer.Argument(help="Study of a new run; not needed to go on with one.")] = None,
    store: Annotated[Path, typer.Option(help="The run's file; made if it does not exist.")] = Path("evolve.db"),
    start: Annotated[str | None, typer.Option("--from", help="Policy to start from: NAME, 'NAME(key=value)' or file.py:Class.")] = None,
    evaluations: Annotated[int | None, typer.Option(min=1, help="Budget of the whole run. Default: as before, or 200.")] = None,
    jail: Annotated[str, typer.Option(help="Level at which candidates run.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Of everything random, hidden trials included; random unless given.")] = None,
) -> None:
    """Serve a run to a coding agent over MCP, on standard input and output."""
    from cloudchamber.core.errors import InputError
    from cloudchamber.evolve import Budget, Search, Settings, resume
    from cloudchamber.evolve.mcp import serve_mcp
    from cloudchamber.evolve.search import changed_budget

    if study is None and not store.is_file():
        raise InputError(f"there is no run at {store}; name the study of a new one: `chamber evolve mcp --store {store} STUDY`.")

    def opened() -> Search:
        if not store.is_file() and study is not None:
            search = Search(study, Settings(start=start, jail=jail, seed=seed), store=store, budget=Budget(evaluations or 200))
        else:
            search = resume(store, budget=changed_budget(store, evaluations=evaluations))
        if study is not None and search.study.name != study:
            search.close()
            raise InputError(f"{store} is a run of study {search.study.name!r}, not of {study!r}.")
        for note in search.notes:
            typer.echo(f"chamber: note: {note}", err=True)
        return search

    serve_mcp(opened)


def dashboard_command(
    store: Annotated[Path, typer.Option(help="The run's file.")] = Path("evolve.db"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    host: Annotated[str, typer.Option(help="Address to listen on; anything but the loopback shows the run to your network.")] = "127.0.0.1",
) -> None:
    """Show a run in a browser while it goes on; nothing can be changed there."""
    from cloudchamber.evolve.dashboard import serve_dashboard

    def opened(url: str) -> None:
        typer.echo(f"{store}: {url}\nThe token in it is the key; Ctrl-C ends.")
        if open_browser:
            import webbrowser

            webbrowser.open(url)

    if host not in ("127.0.0.1", "::1", "localhost"):
        typer.echo(f"chamber: warning: {host} is not the loopback: whoever has the URL can read the candidates, unencrypted.", err=True)
    serve_dashboard(store, host, port, opened=opened)


def import_command(
    evaluator: Annotated[Path, typer.Option(help="File with evaluate(program_path).")],
    program: Annotated[Path, typer.Option(help="Program to start from; only what EVOLVE-BLOCK markers enclose changes.")],
    store: Annotated[Path, typer.Option(help="The run's file; made if it does not exist, gone on with if it does.")] = Path("evolve.db"),
    metric: Annotated[str, typer.Option(help="Which of the evaluator's numbers to search by.")] = "combined_score",
    minimise: Annotated[bool, typer.Option("--minimise", help="Lower is better.")] = False,
    evaluations: Annotated[int, typer.Option(min=1, help="Budget of the whole run.")] = 200,
    proposer: Annotated[list[str] | None, typer.Option(help="Repeatable. Default: tune, mutate, splice.")] = None,
    library: Annotated[list[str] | None, typer.Option(help="Distribution the evaluator may import; repeatable. Default: numpy.")] = None,
    file: Annotated[list[Path] | None, typer.Option(help="File the evaluator needs next to it; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random; random unless given.")] = None,
) -> None:
    """Search with an evaluator file of OpenEvolve, SkyDiscover or ShinkaEvolve; evaluator and candidate run jailed together."""
    from cloudchamber.evolve import Budget, Search, Settings
    from cloudchamber.evolve.importer import import_study

    subject = import_study(evaluator, program, metric=metric, is_minimised=minimise, libraries=library or ("numpy",), files=file or ())
    settings = Settings(proposers=tuple(proposer or Settings.proposers), trials=(1, 1, 2), seed=seed)
    with Search(subject, settings, store=store, budget=Budget(evaluations=evaluations)) as search:
        for note in search.notes:
            typer.echo(f"chamber: note: {note}", err=True)
        search.run(warn=lambda line: typer.echo(f"chamber: {line}", err=True))
        best, first = search.best(), search.starts[0]
        if best is not None:
            typer.echo(f"candidate {best.number}: {metric} {best.objective:.6g}, started from {first.objective:.6g}; {subject.notes[0]}")
            typer.echo(f"{store} holds the run; `chamber evolve show --store {store}` shows it.")
