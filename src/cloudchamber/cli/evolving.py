"""``chamber evolve``: search for a better policy on any study, and everything around a run."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudchamber.core import RESERVED_NAMES

if TYPE_CHECKING:
    from cloudchamber.evolve.search import Search
    from cloudchamber.evolve.settings import Settings
    from cloudchamber.evolve.store import Store
    from cloudchamber.evolve.verdict import HeldOut

FOLDER = Path(".chamber/evolve")
StorePath = Annotated[Path, typer.Option("--store", help="The run's file.")]


def app() -> typer.Typer:
    """The group of commands; ``chamber evolve STUDY`` is short for ``chamber evolve run STUDY``."""
    from .redteaming import red_team_command
    from .serving_evolve import dashboard_command, import_command, mcp_command

    group = typer.Typer(help="Search for a better policy on any study: chamber evolve STUDY.", no_args_is_help=True, rich_markup_mode=None)
    group.callback()(lambda: None)
    commands: dict[str, Callable[..., None]] = {
        "run": run, "ask": ask, "tell": tell, "resume": resume, "show": show, "export": export, "import": import_command,
        "red-team": red_team_command, "mcp": mcp_command, "dashboard": dashboard_command,
    }  # fmt: skip
    for name, function in commands.items():
        group.command(name)(function)
    return group


def expanded(arguments: list[str]) -> list[str]:
    """``evolve STUDY`` as ``evolve run STUDY``."""
    if len(arguments) > 1 and arguments[0] == "evolve" and arguments[1] not in (*RESERVED_NAMES, "--help"):
        return ["evolve", "run", *arguments[1:]]
    return arguments


def run(
    study: Annotated[str, typer.Argument(help="Study to search on; `chamber list` names them.")],
    start: Annotated[
        str | None, typer.Option("--from", help="NAME, 'NAME(key=value)' or file.py:Class to start from. Default: all.")
    ] = None,
    workload: Annotated[list[str] | None, typer.Option(help="Workload; repeatable. Default: all that are not optional.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Your own trace instead.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Parameter of the workloads; repeatable.")
    ] = None,
    evaluations: Annotated[int, typer.Option(help="Budget: candidates to evaluate.")] = 200,
    tokens: Annotated[int | None, typer.Option(help="Budget: tokens of language models.")] = None,
    usd: Annotated[float | None, typer.Option(help="Budget: dollars.")] = None,
    wall_s: Annotated[float | None, typer.Option(help="Budget: seconds.")] = None,
    proposer: Annotated[
        list[str] | None, typer.Option(help="tune, mutate, splice, restart; with a model: diff, rewrite, reflect, crossover, paradigm.")
    ] = None,
    siblings: Annotated[bool, typer.Option(help="Whether parts of the study's other policies may be spliced in.")] = True,
    archive: Annotated[str, typer.Option(help="mixed, pareto, top, or starts (best-of-n).")] = "mixed",
    trials: Annotated[str, typer.Option(help="Trials per workload: training,validation,held-out.")] = "6,6,24",
    seed: Annotated[int | None, typer.Option(help="Of everything random. Default: drawn, and told to no proposer.")] = None,
    store: Annotated[Path | None, typer.Option(help="Where to keep the run. Default: a new file below .chamber/evolve.")] = None,
    jobs: Annotated[int, typer.Option(help="Candidates evaluated at a time; -1 uses every core.")] = 1,
    backend: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    jail: Annotated[str, typer.Option(help="auto, namespace, landlock; subprocess and none must be named.")] = "auto",
    model: Annotated[str | None, typer.Option(help="Model of an OpenAI-compatible endpoint, for the proposers that ask one.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of the endpoint, for example http://127.0.0.1:8000/v1.")] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Name of the environment variable that holds its key. Default: OPENAI_API_KEY, if set.")
    ] = None,
    price: Annotated[str, typer.Option(help="Dollars per million tokens: in,out.")] = "0,0",
    compare: Annotated[bool, typer.Option("--compare", help="Beside it, random restart and best-of-n at equal evaluations.")] = False,
    output: Annotated[Path | None, typer.Option("--export", help="Write the winner here as a policy file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The verdict as JSON on standard output, and nothing else.")] = False,
) -> None:
    """Search for a better policy; candidates run jailed, and the winner is judged on trials nobody has seen."""
    from cloudchamber.core.study import settings_of
    from cloudchamber.evolve.model import Budget
    from cloudchamber.evolve.proposers import NEED_MODEL
    from cloudchamber.evolve.search import Search
    from cloudchamber.evolve.settings import Settings

    llm: dict[str, Any] = {}
    chosen = tuple(proposer or (("tune", "mutate", "splice") if model is None else ("tune", "mutate", "splice", *NEED_MODEL)))
    if model is not None:
        costs = _numbers(price, 2, "--price")
        llm = {"base_url": base_url, "model": model, "usd_per_mtok_in": costs[0], "usd_per_mtok_out": costs[1]}
        llm |= {"key_env": key_env} if key_env else {}
    training, validation, held_out = _numbers(trials, 3, "--trials", int)
    wanted = Settings(
        start=start, workloads=tuple(workload or ()), trace=None if trace is None else str(trace), params=settings_of(settings or []),
        siblings=siblings, proposers=chosen, archive=archive, trials=(training, validation, held_out), jail=jail, seed=seed, llm=llm,
    )  # fmt: skip
    _check_free(output)
    place = store or FOLDER / f"{study}-{time.strftime('%Y%m%d-%H%M%S')}.db"
    budget = Budget(evaluations, tokens, usd, wall_s)
    with Search(study, wanted, store=place, budget=budget) as search:
        _run(search, jobs, backend, json=json, compare=compare, output=output)


def resume(
    store: StorePath,
    evaluations: Annotated[int | None, typer.Option(help="Budget of the whole run: candidates to evaluate. Default: as before.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Budget: tokens of language models.")] = None,
    usd: Annotated[float | None, typer.Option(help="Budget: dollars.")] = None,
    wall_s: Annotated[float | None, typer.Option(help="Budget: seconds, of all sittings.")] = None,
    jobs: Annotated[int, typer.Option(help="Candidates evaluated at a time; -1 uses every core.")] = 1,
    backend: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    output: Annotated[Path | None, typer.Option("--export", help="Write the winner here as a policy file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The verdict as JSON on standard output, and nothing else.")] = False,
) -> None:
    """Go on with a run that was ended, or killed; with a larger budget it searches on."""
    from cloudchamber.evolve.search import changed_budget
    from cloudchamber.evolve.search import resume as go_on

    _check_free(output)
    with go_on(store, budget=changed_budget(store, evaluations=evaluations, tokens=tokens, usd=usd, wall_s=wall_s)) as search:
        _run(search, jobs, backend, json=json, compare=False, output=output)


def _check_free(output: Path | None) -> None:
    from cloudchamber.core.errors import InputError

    if output is not None and output.exists():  # before the run, not after
        raise InputError(f"{output} exists already; give --export another name.")


def _run(search: Search, jobs: int, backend: str, *, json: bool, compare: bool, output: Path | None) -> None:
    from cloudchamber.evolve.export import export as write
    from cloudchamber.evolve.model import ProposerUnavailable
    from cloudchamber.evolve.verdict import judge

    from .live import Live, header

    for line in header(search):
        typer.echo(f"chamber: {line}", err=True)
    for note in search.notes:
        typer.echo(f"chamber: note: {note}", err=True)
    if search.settings.jail in ("subprocess", "none"):
        typer.echo(f"chamber: warning: candidates run without a jail (level {search.settings.jail!r}); do not trust the figures.", err=True)
    stopped = ""
    with Live(search) as view:
        try:
            search.run(jobs, backend, view.show, view.warn)
        except ProposerUnavailable as error:
            stopped = str(error)
        except KeyboardInterrupt:
            stopped = "interrupted"
    if stopped:
        typer.echo(f"chamber: {stopped}\nchamber: nothing is lost: chamber evolve resume --store {search.store.path}", err=True)
        raise typer.Exit(130 if stopped == "interrupted" else 1)
    verdicts = judge(search, 1 if jobs == 1 else jobs, backend)
    rivals = _rivals(search, jobs, backend) if compare else {}
    if json:
        typer.echo(jsonlib.dumps({**_summary(search.store), "rivals": {name: _held_out(each) for name, each in rivals.items()}}))
    else:
        _print(search, verdicts, rivals)
    if output is not None:
        write(search.store, output)
    if json:
        return
    typer.echo(
        f"Run: {search.store.path}. Winner: chamber evolve export --store {search.store.path} winner.py"
        if output is None
        else f"Run: {search.store.path}. Winner: {output}"
    )


def _rivals(search: Search, jobs: int, backend: str) -> dict[str, HeldOut]:
    """The same trials and as many evaluations for a search without memory, and for one that never leaves the starting policies."""
    from dataclasses import replace

    from cloudchamber.evolve.model import Budget
    from cloudchamber.evolve.proposers import NEED_MODEL
    from cloudchamber.evolve.search import Search
    from cloudchamber.evolve.verdict import judge

    free = tuple(name for name in search.settings.proposers if name not in NEED_MODEL) or (
        "mutate",
    )  # rivals ask no model: they have no budget
    settings: dict[str, Settings] = {
        "random restart": replace(search.settings, proposers=("restart",), archive="top", llm={}),
        "best-of-n": replace(search.settings, proposers=free, archive="starts", llm={}),
    }
    found = {}
    for name, each in settings.items():
        with Search(search.study, each, budget=Budget(search.evaluations)) as rival:
            rival.run(jobs, backend)
            found[name] = judge(rival, 1 if jobs == 1 else jobs, backend)[0]
    return found


def _held_out(verdict: HeldOut) -> dict[str, Any]:
    from cloudchamber.evolve.verdict import plain

    return plain(verdict)


def _print(search: Search, verdicts: list[HeldOut], rivals: dict[str, HeldOut]) -> None:
    from cloudchamber.core.results import Table, number

    best = search.best()
    counts = search.store.counts()
    told = sum(counts.values()) - len(search.starts)
    spent = search.store.spent()
    typer.echo(
        f"{search.evaluations} evaluations, {told} told: {counts.get('void', 0)} void, {counts.get('rejected', 0)} rejected, "
        f"{counts.get('archived', 0)} kept; {search.wall_s:.0f} s, {spent.tokens} tokens, {spent.usd:.2f} USD."
    )
    for line in _silences(search.store):
        typer.echo(line)
    metric = search.study.objective
    rows = [
        (f"winner (candidate {verdicts[0].candidate})", number(verdicts[0].objective), _percent(verdicts[0])),
        *((f"{each.baseline} (baseline)", number(each.baseline_objective), "") for each in verdicts),
        *((name, number(each.objective), _percent(each)) for name, each in rivals.items()),
    ]
    if verdicts[0].bound == verdicts[0].bound:
        rows.insert(0, ("bound", number(verdicts[0].bound), ""))
    typer.echo(str(Table(("held out", metric.name, f"against {verdicts[0].baseline}"), tuple(rows))))
    for verdict in verdicts:
        typer.echo(str(verdict))
    if best is not None and best.note:
        typer.echo(f"Last change of the winner, by {best.proposer}: {best.note}")


def _percent(verdict: HeldOut) -> str:
    return "void" if verdict.void else f"{100 * verdict.gain:+.1f} % [{100 * verdict.low:+.1f}, {100 * verdict.high:+.1f}]"


def ask(
    store: StorePath,
    study: Annotated[str | None, typer.Argument(help="Begin a run on this study if there is none in the file yet.")] = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many tasks.")] = 1,
    evaluations: Annotated[int | None, typer.Option(help="Budget of the whole run. Default: as before, or 200.")] = None,
) -> None:
    """A task for a proposer outside, as JSON: parents with their sources and scores, feedback, and how to answer."""
    with _opened(store, study, evaluations) as search:
        for task in search.ask(number):
            parents = [search.store.candidate(each) for each in task.parents]
            typer.echo(
                jsonlib.dumps(
                    {
                        "task": task.id,
                        "study": search.study.name,
                        "objective": search.problem.objective,
                        "protocol": search.problem.model_source,
                        "evaluations_left": search.left(),
                        "parents": [_shown(each) for each in parents if each is not None],
                        "answer": f"chamber evolve tell --store {store} {task.id} FILE.py",
                    }
                )
            )


def tell(
    task: Annotated[str, typer.Argument(help="The task's id.")],
    file: Annotated[Path, typer.Argument(help="The policy file; - reads standard input.")],
    store: StorePath,
    note: Annotated[str, typer.Option(help="What was changed, in a few words.")] = "",
    evaluations: Annotated[int | None, typer.Option(help="Budget of the whole run. Default: as before, or 200.")] = None,
) -> None:
    """Answer a task; prints the verdict as JSON, and exits 1 if the candidate is void or rejected."""
    from cloudchamber.core.errors import InputError

    try:
        source = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {error}.") from None
    with _opened(store, None, evaluations) as search:
        verdict = search.tell(task, source, note=note)
    typer.echo(jsonlib.dumps({name: getattr(verdict, name) for name in ("candidate", "status", "score", "reason", "feedback", "is_best")}))
    if verdict.status in ("void", "rejected"):
        raise typer.Exit(1)


def show(
    store: StorePath,
    candidate: Annotated[int | None, typer.Argument(help="Only this candidate, with its source.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """A run so far, or one candidate of it; works beside a run in progress."""
    from cloudchamber.core.errors import InputError
    from cloudchamber.core.results import Table
    from cloudchamber.evolve.store import Store
    from cloudchamber.jail.proxy import cleaned

    there = Store(store, is_reader=True)
    if candidate is not None:
        found = there.candidate(candidate)
        if found is None:
            raise InputError(f"the run has no candidate {candidate}.")
        typer.echo(jsonlib.dumps(_shown(found)) if json else cleaned(f"{_line(found)}\n{found.feedback}\n\n{found.source}"))
        return
    if json:
        typer.echo(jsonlib.dumps(_summary(there)))
        return
    best = there.candidates("score IS NOT NULL AND reason = ''", order="score DESC, number", limit=12)
    rows = tuple(
        (str(each.number), each.proposer, each.status, _cell(each.score), _cell(each.validation), cleaned(each.note)[:70]) for each in best
    )
    typer.echo(str(Table(("candidate", "proposer", "status", "training", "hidden", "change"), rows)))
    typer.echo(", ".join(f"{count} {status}" for status, count in there.counts().items()))
    for line in _silences(there):
        typer.echo(line)
    for verdict in there["verdict"] or []:
        typer.echo(verdict["text"])


def export(
    store: StorePath,
    target: Annotated[Path | None, typer.Argument(help="The policy file to write; default: standard output.")] = None,
    candidate: Annotated[int | None, typer.Option(help="Default: the winner.")] = None,
) -> None:
    """Write the winner as a policy file that `chamber study` and `chamber run` take as it is."""
    from cloudchamber.evolve.export import export as write
    from cloudchamber.evolve.store import Store

    source = write(Store(store, is_reader=True), target, candidate)
    typer.echo(source if target is None else f"Winner: {target}")


def _opened(store: Path, study: str | None, evaluations: int | None) -> Search:
    from cloudchamber.core.errors import InputError
    from cloudchamber.evolve.model import Budget
    from cloudchamber.evolve.search import Search, changed_budget
    from cloudchamber.evolve.search import resume as go_on
    from cloudchamber.evolve.store import Store, settings_of

    if store.exists():
        reader = Store(store, is_reader=True)
        known = settings_of(reader)["study"]
        reader.close()
        if study not in (None, known):
            raise InputError(f"{store} is a run of study {known!r}, not of {study!r}; leave the study out, or give another --store.")
        return go_on(store, budget=changed_budget(store, evaluations=evaluations))
    if study is None:
        raise InputError(f"there is no run at {store}; name a study to begin one: chamber evolve ask --store {store} STUDY.")
    return Search(study, store=store, budget=Budget(evaluations or 200))


def _shown(candidate: Any) -> dict[str, Any]:
    """What a proposer may see of a candidate: nothing of the hidden trials."""
    names = ("number", "proposer", "parents", "note", "status", "score", "scores", "objective", "reason", "feedback", "source")
    return {name: getattr(candidate, name) for name in names}


def _summary(store: Store) -> dict[str, Any]:
    spent = store.spent()
    return {
        "study": (store["settings"] or {}).get("study"),
        "evaluations": store.evaluations(),
        "counts": dict(store.counts()),
        "best": store["best"],
        "verdict": store["verdict"],
        "tokens": spent.tokens,
        "usd": spent.usd,
        "wall_s": store["wall_s"],
        "unavailable": {name: {"times": times, "last": why} for name, (times, why) in store.silences().items()},
        "store": str(store.path),
    }


def _silences(store: Store) -> list[str]:
    """A line for every cause why proposers could not work at some time."""
    from cloudchamber.jail.proxy import cleaned

    found: dict[str, list[str]] = {}
    for name, (times, why) in store.silences().items():
        found.setdefault(why, []).append(f"{name} ({times})")
    return [cleaned(f"Could not work (times): {', '.join(names)}: {why}").replace("\n", " ") + "." for why, names in found.items()]


def _line(candidate: Any) -> str:
    return f"candidate {candidate.number} by {candidate.proposer}, {candidate.status}: {candidate.reason or candidate.note}"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _numbers(text: str, count: int, option: str, kind: type[int] | type[float] = float) -> list[Any]:
    from cloudchamber.core.errors import InputError

    try:
        found = [kind(each) for each in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise InputError(f"{option} takes {count} {'whole ' if kind is int else ''}numbers with commas between, got {text!r}.")
    return found
