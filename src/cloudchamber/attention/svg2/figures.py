"""The report's picture of cluster rules: what each computes against what it catches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.study import Figure
from cloudchamber.core.svg import PALETTE, Scale, document, line, text

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WIDTH, HEIGHT, LEFT, BOTTOM, KEY = 980.0, 300.0, 50.0, 36.0, 190.0


def figures(results: Results) -> list[Figure]:
    """One chart for each workload."""
    return [
        Figure(
            f"Caught and computed: {name}",
            "A point is a trial: the share of all pairs that is computed, and the share of the attention that is caught. Above the dashed "
            "line a rule delivers what was asked for; below the dotted one it is charged for what is missing.",
            chart(points(results, name), workload.p),  # type: ignore[attr-defined]
        )
        for name, workload in results.workloads.items()
    ]


def points(results: Results, workload: str) -> dict[str, list[tuple[float, float]]]:
    """Density and recall of each trial of each rule, void ones too."""
    found: dict[str, list[tuple[float, float]]] = {}
    for trial in results.of(workload):
        series = trial.outcome.series
        if "recall" in series:
            found.setdefault(trial.policy, []).append((float(np.mean(series["density"])), float(np.mean(series["recall"]))))
    return found


def chart(found: dict[str, list[tuple[float, float]]], p: float) -> str:
    """Return the points of each rule."""
    x, y = Scale(0, 1, LEFT, WIDTH - KEY), Scale(0, 1, HEIGHT - BOTTOM, 10)
    parts = [text(LEFT, HEIGHT - 4, "density"), text(2, 18, "recall")]
    for at in np.linspace(0, 1, 6):
        parts += [line(x(at), 10, x(at), HEIGHT - BOTTOM), text(x(at), HEIGHT - BOTTOM + 14, f"{at:g}", anchor="middle")]
        parts += [line(LEFT, y(at), WIDTH - KEY, y(at)), text(LEFT - 6, y(at) + 4, f"{at:g}", anchor="end")]
    for level, dash in ((p, "6 3"), (p - 0.05, "2 3")):
        ends = f'x1="{LEFT:g}" y1="{y(level):.1f}" x2="{WIDTH - KEY:g}" y2="{y(level):.1f}"'
        parts.append(f'<line {ends} stroke="var(--soft)" stroke-dasharray="{dash}"/>')
    for i, (name, points) in enumerate(found.items()):
        colour = PALETTE[i % len(PALETTE)]
        look = f'fill="{colour}" fill-opacity="0.7"' if i < len(PALETTE) else f'fill="none" stroke="{colour}" stroke-width="1.5"'
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4" {look}/>' for a, b in points]
        parts.append(f'<circle cx="{WIDTH - KEY + 18:g}" cy="{16 + 18 * i:g}" r="4" {look}/>')
        parts.append(text(WIDTH - KEY + 30, 20 + 18 * i, name))
    return document(WIDTH, HEIGHT, parts, "recall against density")
