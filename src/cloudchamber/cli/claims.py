"""``chamber claims``: each headline claim: published figure, our figure, kind of evidence, verdict."""

from __future__ import annotations

import json as jsonlib
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cloudchamber.core.claims import Claim
    from cloudchamber.core.evidence.provenance import Provenance
    from cloudchamber.core.evidence.standing import Standing
    from cloudchamber.core.evidence.store import Store
    from cloudchamber.core.study import Study


def claims(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Studies or claims; with --update, documents.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Run the commands again and append a record of each claim.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if a claim is stale or fails, or a study has none.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write the claims to this .md, or with all records to this .json.")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder of your own records: read beside the packaged, new ones go there.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Rewrite the figures in the named documents from the newest records.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per claim on standard output, and nothing else.")] = False,
) -> None:
    """Each headline claim: published figure, our figure, kind of evidence, verdict."""
    from cloudchamber.core.errors import InputError
    from cloudchamber.core.evidence.standing import check_export, table
    from cloudchamber.core.evidence.standing import export as write

    if update:
        if run or check or export or json:
            raise InputError("--update takes documents, and no other option than --store.")
        _update([Path(name) for name in names or ()], _store(store, is_written=False))
        return
    if export is not None:
        check_export(export)  # before hours of --run, not after
    chosen = _chosen(names or [])
    records = _store(store, is_written=run)
    now = {subject.name: _provenance(subject) for subject in chosen}
    failures = _run_all(chosen, now, records) if run else []
    standings = _standings(chosen, records, now)
    for each in standings if json else ():
        typer.echo(jsonlib.dumps(each.to_json(), ensure_ascii=False))
    if not json:
        typer.echo(str(table(standings)) if standings else "No study declares a claim.")
    if export is not None:
        write(export, standings, records)
    failures += _failed_checks(chosen, standings) if check else []
    for failure in failures:
        typer.echo(f"chamber: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


def documented(store: Store | None = None) -> list[Standing]:
    """Return every study's claims as documents show them: as on record, stale or not (that is what ``--check`` is for)."""
    from cloudchamber.core.evidence.store import Store

    return _standings(_chosen([]), Store() if store is None else store)


def _chosen(names: Sequence[str]) -> dict[Study, tuple[Claim, ...]]:
    """Studies and those of their claims that were named; all without names."""
    from cloudchamber.core.errors import InputError, unknown
    from cloudchamber.core.registry import load_study, study_names

    if names and set(names) <= set(study_names()):
        return {subject: subject.claims for subject in map(load_study, dict.fromkeys(names))}
    studies = [load_study(name) for name in study_names()]
    owner: dict[str, Study] = {}
    for subject in studies:
        for claim in subject.claims:
            if claim.id in owner:
                raise InputError(f"claim {claim.id!r} is declared twice, by {owner[claim.id].name} and {subject.name}; rename one.")
            owner[claim.id] = subject
    known = {*owner, *(subject.name for subject in studies)}
    for name in names:
        if name not in known:
            raise unknown("study or claim", name, known)
    if not names:
        return {subject: subject.claims for subject in studies}
    wanted = {subject: tuple(claim for claim in subject.claims if claim.id in names or subject.name in names) for subject in studies}
    return {subject: chosen for subject, chosen in wanted.items() if chosen or subject.name in names}


def _store(folder: Path | None, *, is_written: bool) -> Store:
    from cloudchamber.core.errors import InputError
    from cloudchamber.core.evidence.store import PACKAGED, Store

    if folder is not None:
        if (folder.exists() and not folder.is_dir()) or not (is_written or folder.exists()):
            raise InputError(f"--store {str(folder)!r} is not a folder.")
        return Store(PACKAGED, folder)
    if is_written and not (PACKAGED.parents[2] / "pyproject.toml").is_file():
        raise InputError("this cloudchamber is installed, not a checkout: give your own records a folder with --store DIR.")
    return Store()


def _provenance(subject: Study) -> Provenance:
    from cloudchamber.core.datasets import fingerprint
    from cloudchamber.core.evidence.provenance import Provenance

    return Provenance.of(subject, [fingerprint(dataset) for dataset in subject.datasets()])  # type: ignore[arg-type,unused-ignore]


def _standings(chosen: Mapping[Study, Iterable[Claim]], store: Store, now: Mapping[str, Provenance] | None = None) -> list[Standing]:
    from cloudchamber.core.evidence.standing import Standing

    return [
        Standing.of(subject.name, claim, store, now[subject.name] if now is not None else None)
        for subject, own in chosen.items()
        for claim in own
    ]


def _failed_checks(chosen: Mapping[Study, Iterable[Claim]], standings: Sequence[Standing]) -> list[str]:
    silent = [f"study {subject.name!r} declares no claim." for subject in chosen if not subject.claims]
    return silent + [
        f"claim {each.claim.id!r} {'is ' * (each.status == 'stale')}{each.status}: {each.why}."
        for each in standings
        if not each.passes_check
    ]


def _run_all(chosen: Mapping[Study, Iterable[Claim]], now: Mapping[str, Provenance], store: Store) -> list[str]:
    """Run every command once, append a record per claim, and return what went wrong."""
    from cloudchamber.core.errors import ChamberError
    from cloudchamber.core.evidence.assessors import assess

    commands: dict[tuple[str, ...], list[tuple[Study, Claim]]] = {}
    for subject, own in chosen.items():
        for claim in own:
            if claim.is_runnable:
                commands.setdefault(claim.reproduce, []).append((subject, claim))
    failures = []
    for command, decided in commands.items():
        typer.echo(f"chamber: running {' '.join(command)}", err=True)
        ran, begin = datetime.now(UTC), time.monotonic()
        try:
            rows = reproduce(command)
        except ChamberError as error:
            failures.append(str(error))
            continue
        seconds = time.monotonic() - begin
        for subject, claim in decided:
            try:
                store.add(assess(claim, rows, now[subject.name].method(claim, ran, seconds)))
            except ChamberError as error:
                failures.append(str(error))
    return failures


def reproduce(command: Sequence[str]) -> list[dict[str, Any]]:
    """Run a claim's command in this interpreter's environment and return the rows it wrote.

    Raises
    ------
    ChamberError
        If it failed; exit code 1 with rows means void trials, which are evidence too.
    """
    from cloudchamber.core.errors import ChamberError

    launcher = [sys.executable, "-m", "cloudchamber"] if command[0] == "chamber" else [sys.executable]
    done = subprocess.run([*launcher, *command[1:]], capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode not in (0, 1) or (done.returncode == 1 and not done.stdout.strip()):
        raise ChamberError(f"{' '.join(command)} ended with exit code {done.returncode}: {last}")
    try:
        return [jsonlib.loads(line) for line in done.stdout.splitlines() if line.strip()]
    except jsonlib.JSONDecodeError as error:
        raise ChamberError(f"{' '.join(command)} wrote something other than rows of JSON ({error}); does it say --json?") from None


def _update(files: Sequence[Path], store: Store) -> None:
    from cloudchamber.core.errors import InputError
    from cloudchamber.core.evidence.prose import problems, update

    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise InputError(f"--update needs documents that exist; not found: {', '.join(missing) or 'none named'}.")
    standings = documented(store)
    is_wrong = False
    for file in files:
        before = file.read_text(encoding="utf-8")
        after = update(before, standings)
        if after != before:
            file.write_text(after, encoding="utf-8")
        typer.echo(f"{file}: {'updated' if after != before else 'unchanged'}")
        for problem in problems(after, standings):
            is_wrong = True
            typer.echo(f"chamber: {file}, {problem}", err=True)
    if is_wrong:
        raise typer.Exit(1)
