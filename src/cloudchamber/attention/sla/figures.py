"""The report's pictures of routers: maps of the labels, and what the best linear branch repairs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.attention.figures import GAP, PER_ROW, SIDE, TOP
from cloudchamber.core.study import Figure
from cloudchamber.core.svg import document, text

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

SHOWN = 32  # blocks along each side of a map


def figures(results: Results) -> list[Figure]:
    """A sheet of maps for each workload, of the first seed and its first head."""
    made = []
    for name in results.workloads:
        found = [t for t in results.of(name) if not t.outcome.is_void and t.seed == 0]
        if found:
            mass = np.asarray(found[0].outcome.series["mass"])[0]
            made.append(
                Figure(
                    f"Critical, marginal, negligible: {name}",
                    f"A row is a block of queries, a column a block of keys, the first {SHOWN} of each at most. Left: dense attention, "
                    "darker with more of a row's weight. Then the labels of each router: blue is read in full, white is left to the "
                    "linear branch, grey is skipped. The number is the share of attention on blue.",
                    sheet(mass, {t.policy: np.asarray(t.outcome.series["labels"])[0] for t in found}),
                )
            )
    return made


def sheet(mass: np.ndarray, labels: dict[str, np.ndarray]) -> str:
    """Return small maps side by side."""
    part = mass[:SHOWN, :SHOWN]
    parts = _map(_runs(np.sqrt(part / np.maximum(part.max(axis=1, keepdims=True), 1e-12)).round(1), "spot"), part.shape, "attention", 0)
    for place, (name, each) in enumerate(labels.items(), start=1):
        caught = (mass * (each == 1)).sum() / mass.sum()
        shown = each[:SHOWN, :SHOWN]
        boxes = _runs((shown == 1) * 1.0, "spot") + _runs((shown == -1) * 0.45, "soft")
        parts += _map(boxes, part.shape, f"{name}: {caught:.2f}", place)
    rows = -(-(len(labels) + 1) // PER_ROW)
    return document(PER_ROW * (SIDE + GAP), rows * (SIDE + TOP + GAP), parts, "maps of labels")


Box = tuple[int, int, int, float, str]


def _runs(shade: np.ndarray, colour: str) -> list[Box]:
    """Row, first column, width, opacity and colour of each run of neighbours that look alike."""
    found: list[Box] = []
    for row, values in enumerate(shade):
        edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        found += [(row, a, b - a, float(values[a]), colour) for a, b in pairwise(edges) if values[a] >= 0.05]
    return found


def _map(boxes: list[Box], shape: tuple[int, ...], title: str, place: int) -> list[str]:
    left, top = (place % PER_ROW) * (SIDE + GAP), (place // PER_ROW) * (SIDE + TOP + GAP)
    high, wide = SIDE / shape[0], SIDE / shape[1]
    frame = f'<rect x="{left:g}" y="{top + TOP:g}" width="{SIDE:g}" height="{SIDE:g}" fill="none" stroke="var(--soft)"/>'
    parts = [text(left, top + 14, title), frame]
    for row, column, count, opacity, colour in boxes:
        box = f'x="{left + column * wide:.2f}" y="{top + TOP + row * high:.2f}" width="{count * wide:.2f}" height="{high:.2f}"'
        parts.append(f'<rect {box} fill="var(--{colour})" fill-opacity="{opacity:g}"/>')
    return parts
