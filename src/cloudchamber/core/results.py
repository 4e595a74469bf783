"""Results of a study: rows, tables, files and the report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .outcome import Bound, Metric, Outcome, ratio

if TYPE_CHECKING:
    import pandas as pd

    from .study import Study, Workload


@dataclass(frozen=True, eq=False)
class Trial:
    """One policy in one trial, judged."""

    workload: str
    policy: str
    seed: int
    outcome: Outcome
    bound: Bound | None
    is_generated: bool
    jail: str | None = None  # the level its policy ran at; None for the package's own and the caller's objects

    def ratio(self, metric: Metric) -> float | None:
        """This trial's own ratio; None when void or without a positive bound."""
        if self.outcome.is_void or self.bound is None:
            return None
        return ratio(self.outcome.metrics[metric.name], self.bound.value, metric.direction)


@dataclass(frozen=True)
class Row:
    """One line of the table: a policy on a workload, over all seeds.

    ``mean`` is the objective's mean, ``ratio`` that of the sums over seeds; both None where any trial is void. ``worst`` is the largest
    ratio of a single trial.
    """

    workload: str
    policy: str
    mean: float | None
    ratio: float | None
    worst: float | None
    void: int
    trials: int
    why: str
    is_generated: bool


@dataclass(frozen=True)
class Table:
    """Columns and rows of text that print as an aligned table and show as HTML in a notebook."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        numeric = [all(_is_numeric(row[i]) for row in self.rows) for i in range(len(self.columns))]

        def text(line: Sequence[str]) -> str:
            return "  ".join(
                cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, numeric, strict=True)
            ).rstrip()

        body = "\n".join(text(row) for row in self.rows)
        head = f"{self.title}\n" if self.title else ""
        return f"{head}{text(self.columns)}\n{'  '.join('-' * w for w in widths)}\n{body}"

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(each)}</th>" for each in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _is_numeric(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "-–.~∞" or cell.startswith("void")


@dataclass(frozen=True, eq=False)
class Results:
    """Every trial of a study, in order of workload, policy and seed.

    Parameters
    ----------
    study : Study
    trials : tuple of Trial
    workloads : mapping of str to Workload
    clairvoyant : frozenset of str
        Policies that were shown the future: a yardstick, not a choice.
    command : tuple of str
        What reproduces it.
    notes : tuple of str
        What the reader must know: data replaced by a generated twin, weaker jail, rounding.
    """

    study: Study
    trials: tuple[Trial, ...]
    workloads: Mapping[str, Workload]
    clairvoyant: frozenset[str] = frozenset()
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def policies(self) -> list[str]:
        """Names of the policies, in order."""
        return list(dict.fromkeys(trial.policy for trial in self.trials))

    def of(self, workload: str, policy: str | None = None) -> list[Trial]:
        """Trials on a workload, of one policy or all."""
        return [trial for trial in self.trials if trial.workload == workload and policy in (None, trial.policy)]

    def summary(self) -> list[Row]:
        """One row per workload and policy."""
        return [
            _summarise(self.of(workload, policy), self.study.objective)
            for workload in self.workloads
            for policy in self.policies
            if self.of(workload, policy)
        ]

    def table(self) -> Table:
        """Mean objective, its ratio to the bound, and the worst single trial, per workload and policy."""
        metric = self.study.objective
        rows: list[tuple[str, ...]] = []
        for workload in self.workloads:
            trials = {trial.seed: trial for trial in self.of(workload)}
            bounds = [trial.bound for trial in trials.values() if trial.bound is not None]
            if len(bounds) == len(trials):
                label = "optimum" if all(bound.is_exact for bound in bounds) else "bound"
                mean = sum(bound.value for bound in bounds) / len(bounds)
                rows.append((self._shown(workload), label, number(mean), *(("1.000", "1.000") if mean else ("", "")), ""))
            rows += [self._line(row) for row in self.summary() if row.workload == workload]
        return Table(("workload", "policy", f"{metric.name}", "ratio", "worst", "note"), tuple(rows))

    def _line(self, row: Row) -> tuple[str, ...]:
        if row.void:
            return (self._shown(row.workload), row.policy, f"void {row.void}/{row.trials}", "", "", row.why)
        ratios = ("" if x is None else f"{x:.3f}" for x in (row.ratio, row.worst))
        return (self._shown(row.workload), row.policy, number(row.mean), *ratios, "")

    def _shown(self, workload: str) -> str:
        return f"{workload} (generated)" if any(trial.is_generated for trial in self.of(workload)) else workload

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows of ``--json``: one plain dict per trial; metrics and ratio of a void trial are None."""
        for trial in self.trials:
            void = trial.outcome.is_void
            yield {
                "study": self.study.name,
                "workload": trial.workload,
                "policy": trial.policy,
                "seed": trial.seed,
                **{metric.name: None if void else trial.outcome.metrics[metric.name] for metric in self.study.metrics},
                "bound": trial.bound.value if trial.bound else None,
                "ratio": trial.ratio(self.study.objective),
                "void": "; ".join(trial.outcome.violations) or None,
                "generated": trial.is_generated,
                "jail": trial.jail,
                "evidence": self.study.evidence,
            }

    def to_json(self) -> str:
        """One JSON object per line, a trial each."""
        return "".join(json.dumps(record, allow_nan=False) + "\n" for record in self.records())

    def to_pandas(self) -> pd.DataFrame:
        """A row per trial.

        Raises
        ------
        MissingExtra
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            from .errors import MissingExtra

            raise MissingExtra("to_pandas() needs pandas", "pandas") from None
        return pd.DataFrame(self.records())

    def report(self, path: str | Path) -> Path:
        """Write the report, one self-contained HTML file, and return where it lies."""
        from .report import write_report

        return write_report(self, Path(path))


def _summarise(trials: Sequence[Trial], metric: Metric) -> Row:
    first = trials[0]
    void = [trial for trial in trials if trial.outcome.is_void]
    if void:
        return Row(
            first.workload, first.policy, None, None, None, len(void), len(trials), void[0].outcome.violations[0], first.is_generated
        )
    values = [trial.outcome.metrics[metric.name] for trial in trials]
    bounds = [trial.bound.value for trial in trials if trial.bound is not None]
    total = ratio(math.fsum(values), math.fsum(bounds), metric.direction) if len(bounds) == len(trials) else None
    own = [each for trial in trials if (each := trial.ratio(metric)) is not None]
    return Row(
        first.workload,
        first.policy,
        math.fsum(values) / len(values),
        total,
        max(own) if len(own) == len(trials) else None,
        0,
        len(trials),
        "",
        first.is_generated,
    )


def number(value: float | None, digits: int = 4) -> str:
    """A number with four significant digits, thousands separated; empty for None."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"
