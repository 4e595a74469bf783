"""The view of a run in the terminal: redrawn in place where there is one, a line per step forward where there is not."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cloudchamber.evolve.search import Search

TREND = "▁▂▃▄▅▆▇█"


def header(search: Search) -> list[str]:
    """What is searched on and how: enough to repeat the run."""
    settings, splits = search.settings, search.splits
    counts = [Counter(point.group for point in points) for points in (splits.training, splits.validation, splits.held_out)]
    names = {point.group: point.name for point in splits.training}
    workloads = [f"{name} ({'+'.join(str(count[group]) for count in counts)})" for group, name in names.items()]
    starts = settings.start or f"{', '.join(each.note for each in search.starts)} (all that can be)"
    budget = search.budget
    limits = [
        f"{budget.evaluations} evaluations",
        *([f"{budget.tokens} tokens"] if budget.tokens is not None else []),
        *([f"{budget.usd:g} USD"] if budget.usd is not None else []),
        *([f"{budget.wall_s:g} s"] if budget.wall_s is not None else []),
    ]
    model = f", asking {settings.llm['model']} at {settings.llm['base_url']}" if settings.llm else ""
    done = f", {search.evaluations} of them made" if search.evaluations else ""
    return [
        f"study {search.study.name}, from {starts}, seed {search.seed}",
        f"workloads, with trials for training+validation+verdict: {', '.join(workloads)}",
        f"proposers {', '.join(search.proposers)}{model}; jail {settings.jail}; budget {', '.join(limits)}{done}",
        f"run {search.store.path}",
    ]


class Live:
    """Shows a run while it goes on.

    Parameters
    ----------
    search : Search
    """

    def __init__(self, search: Search) -> None:
        self._search, self._began_s = search, time.monotonic()
        self._best = 0
        self._curve: list[float] = []
        self._live: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live as RichLive

            self._live = RichLive(console=Console(stderr=True), refresh_per_second=4, transient=True)

    def __enter__(self) -> Live:
        if self._live is not None:
            self._live.__enter__()
        self.show(self._search)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, search: Search) -> None:
        """Take in a step."""
        best = search.best()
        if best is not None:
            self._curve.append(best.score or 0.0)
        if self._live is not None:
            self._live.update(self._picture(search))
        elif best is not None and best.number != self._best:
            self._best = best.number
            typer.echo(
                f"{search.evaluations:>6} evaluations: {best.score:.4f} by candidate {best.number} ({best.proposer}: {_short(best.note)})",
                err=True,
            )

    def warn(self, text: str) -> None:
        """Say what goes wrong, without disturbing the picture."""
        from cloudchamber.jail.proxy import cleaned

        line = f"chamber: {cleaned(text)}".replace("\n", " ")
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text(line))
        else:
            typer.echo(line, err=True)

    def _picture(self, search: Search) -> Any:
        from rich.table import Table
        from rich.text import Text

        counts = search.store.counts()
        table = Table(title=f"chamber evolve {search.study.name}", title_justify="left", expand=False, show_edge=False)
        for column in ("candidate", "proposer", "training", "hidden", "change"):
            table.add_column(column, no_wrap=True, justify="right" if column in ("training", "hidden") else "left")
        for each in search.archive.members[:8]:
            cells = (
                str(each.number),
                each.proposer,
                f"{each.score:.4f}",
                "" if each.validation is None else f"{each.validation:.4f}",
                _short(each.note),
            )
            table.add_row(*map(Text, cells))  # Text: what a candidate says is never markup
        used = search.wall_s
        table.caption = (
            f"{search.evaluations} of {search.budget.evaluations} evaluations, {used:.0f} s; {counts.get('void', 0)} void, "
            f"{len(search.archive.members)} kept; best so far {self._sparkline()}"
        )
        table.caption_justify = "left"
        return table

    def _sparkline(self, width: int = 40) -> str:
        values = self._curve[:: max(1, len(self._curve) // width)][-width:]
        low, high = min(values, default=0.0), max(values, default=1.0)
        return "".join(TREND[int((each - low) / (high - low) * 7)] if high > low else TREND[0] for each in values)


def _short(note: str) -> str:
    from cloudchamber.jail.proxy import cleaned

    return cleaned(note).replace("\n", " ")[:70]
