"""``chamber data``: every dataset: where it lies, licence, size, how to get it."""

from __future__ import annotations

from typing import Annotated

import typer


def data(
    name: Annotated[str | None, typer.Argument(help="Only this dataset.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch it from its origin into the user's cache.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare its files with their SHA-256; exit 1 if any differs.")] = False,
) -> None:
    """Every dataset: place, licence, size, how to get it."""
    from cloudchamber.core import datasets
    from cloudchamber.core.errors import InputError, unknown
    from cloudchamber.core.registry import loadable_studies

    known = {each.name: each for each in datasets.all_datasets(loadable_studies()[0])}
    if name is not None and name not in known:
        raise unknown("dataset", name, known)
    if fetch and name is None:
        raise InputError("--fetch needs the name of one dataset.")
    failed = False
    for dataset in [known[name]] if name else known.values():
        folder = datasets.fetch(dataset) if fetch else datasets.find(dataset)
        typer.echo(f"{dataset.name}: {dataset.title}")
        typer.echo(f"  place    {folder if folder else f'not here; chamber data {dataset.name} --fetch'}")
        typer.echo(f"  size     {dataset.size_bytes / 1e6:.1f} MB in {len(dataset.sha256)} files")
        typer.echo(f"  licence  {dataset.licence}")
        for source in dataset.sources:
            typer.echo(f"  origin   {source.url}")
        if check:
            wrong = datasets.check(dataset, folder) if folder else ["(not here)"]
            failed |= bool(wrong)
            typer.echo(f"  check    {'all files as expected' if not wrong else 'differs: ' + ', '.join(wrong[:5])}")
    if failed:
        raise typer.Exit(1)
