"""The report: one self-contained HTML file with tables, distributions over seeds, the study's own figures, and how to reproduce it."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .errors import InputError
from .results import Results, Row, number
from .svg import Scale, strip, strip_axis

STRIP_WIDTH = 300.0


def write_report(results: Results, path: Path) -> Path:
    """Write the report and return its path; an existing file is replaced whole or not at all.

    Raises
    ------
    InputError
        If the folder does not exist or cannot be written.
    """
    check_place(path)
    html = render(results)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the disk itself may be what is wrong
            partial.unlink()
        raise _unwritable(path, error.strerror) from None
    return path


def check_place(path: Path) -> None:
    """Make the report's folder, if need be.

    Raises
    ------
    InputError
        If a report cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error.strerror) from None
    if path.is_dir() or not path.name:
        raise _unwritable(path, "it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise _unwritable(path, "its folder is read-only")


def _unwritable(path: Path, why: str | None) -> InputError:
    return InputError(f"cannot write the report to {str(path)!r}: {why}; give another --report.")


def render(results: Results) -> str:
    """Return the report's HTML."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("cloudchamber.core", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    study = results.study
    return environment.get_template("report.html.j2").render(
        study=study,
        results=results,
        sections=[_section(results, name) for name in results.workloads],
        figures=study.figures(results),
        command=shlex.join(results.command) if results.command else "",
        versions=_versions(),
        generated=any(t.is_generated for t in results.trials),
    )


def _section(results: Results, workload: str) -> dict[str, Any]:
    """One workload's table: rows of numbers, each with its distribution of ratios."""
    metric = results.study.objective
    rows = [row for row in results.summary() if row.workload == workload]
    trials = {row.policy: results.of(workload, row.policy) for row in rows}
    ratios = {name: [r for trial in each if (r := trial.ratio(metric)) is not None] for name, each in trials.items()}
    largest = max((max(each) for each in ratios.values() if each), default=2.0)
    scale = Scale(1.0, max(largest, 1.05), 8, STRIP_WIDTH, is_log=True)
    bounds = {trial.seed: trial.bound for each in trials.values() for trial in each if trial.bound is not None}
    return {
        "name": workload,
        "summary": results.workloads[workload].summary,
        "axis": strip_axis(scale),
        "unit": metric.unit,
        "objective": metric.name,
        "seeds": len(results.of(workload, rows[0].policy)),
        "is_generated": any(row.is_generated for row in rows),
        "bound": number(sum(bound.value for bound in bounds.values()) / len(bounds)) if bounds else "",
        "bound_label": "optimum (exact)" if bounds and all(bound.is_exact for bound in bounds.values()) else "bound",
        "rows": [_line(row, ratios[row.policy], scale, row.policy in results.clairvoyant) for row in sorted(rows, key=_rank)],
        "best": next(
            (row.policy for row in sorted(rows, key=_rank) if row.mean is not None and row.policy not in results.clairvoyant), None
        ),
    }


def _rank(row: Row) -> tuple[bool, float]:
    return (row.mean is None, row.ratio if row.ratio is not None else (row.mean or 0.0))


def _line(row: Row, ratios: list[float], scale: Scale, is_clairvoyant: bool) -> dict[str, Any]:
    return {
        "policy": row.policy,
        "is_clairvoyant": is_clairvoyant,
        "mean": number(row.mean),
        "ratio": "" if row.ratio is None else f"{row.ratio:.3f}",
        "worst": "" if row.worst is None else f"{row.worst:.3f}",
        "void": f"void {row.void}/{row.trials}: {row.why}" if row.void else "",
        "strip": strip(ratios, scale, f"ratios of {row.policy} over seeds"),
    }


def _versions() -> list[tuple[str, str]]:
    found = [("Python", platform.python_version()), ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")]
    for name in ("cloudchamber", "numpy", "numba", "msgspec", "joblib"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found
