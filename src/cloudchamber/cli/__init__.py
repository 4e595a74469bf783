"""The command line ``chamber``: study, claims, data, jail, and what the modules bring under run and serve."""

from __future__ import annotations

import sys
import warnings

import typer

from . import claims, data, evolving, jailing, listing, studying

VERBS = {"run": "Run a policy on the real thing.", "serve": "Serve a module over the network."}


def build(arguments: list[str]) -> typer.Typer:
    """Return the app; commands of modules are loaded only when their verb is asked for."""
    app = typer.Typer(
        name="chamber",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="The decisions inside AI infrastructure: studied on your trace, run for real.",
    )
    app.callback(invoke_without_command=True)(_root)
    app.command("study")(studying.study)
    app.command("list")(listing.list_)
    app.command("claims")(claims.claims)
    app.command("data")(data.data)
    jail = typer.Typer(help="The walls around policies you do not trust.", no_args_is_help=True, rich_markup_mode=None)
    jail.callback()(lambda: None)
    jail.command("check")(jailing.check)
    app.add_typer(jail, name="jail")
    app.add_typer(evolving.app(), name="evolve")
    for verb, text in VERBS.items():
        app.add_typer(_group(verb, text, is_used=verb in arguments[:1]), name=verb)
    return app


def _root(version: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True)) -> None:
    if version:
        from cloudchamber import __version__

        typer.echo(f"cloudchamber {__version__}")
        raise typer.Exit


def _group(verb: str, text: str, *, is_used: bool) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)
    group.callback()(lambda: None)
    if is_used:
        from cloudchamber.core.registry import command_names, load_command

        for name in command_names(verb):
            group.command(name, context_settings={"allow_interspersed_args": verb != "run"})(load_command(verb, name))
    return group


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``chamber``: exit code 0; 1 void or failed check; 2 bad usage or input."""
    argv = evolving.expanded(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _warn
    try:
        build(argv)(args=argv, prog_name="chamber")
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        typer.echo(f"chamber: {message}", err=True)
        raise SystemExit(2) from None


def _message(error: Exception) -> str | None:
    """What to tell the user; None for an error that is ours."""
    from cloudchamber.core.errors import ChamberError

    if isinstance(error, OSError) and not isinstance(error, ChamberError):  # a full disk, a closed file
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return str(error) if isinstance(error, ChamberError) else None


def _warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, UserWarning):
        typer.echo(f"chamber: warning: {message}", err=True)
