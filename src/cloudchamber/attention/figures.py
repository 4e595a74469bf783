"""The report's picture of attention: where it is, and what each selector reads of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.study import Figure
from cloudchamber.core.svg import document, text

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

SIDE, GAP, TOP = 150.0, 16.0, 22.0
PER_ROW = 5


def figures(results: Results) -> list[Figure]:
    """One sheet of maps for each workload, of the first seed and its first head."""
    made = []
    for name in results.workloads:
        found = [t for t in results.of(name) if not t.outcome.is_void and t.seed == 0]
        if found:
            mass = np.asarray(found[0].outcome.series["mass"])[0]
            masks = {t.policy: np.asarray(t.outcome.series["mask"])[0] for t in found}
            made.append(
                Figure(
                    f"What is read: {name}",
                    "A row is a block of queries, a column a block of keys, the first head of seed 0. Left: dense attention, darker with "
                    "more of a row's weight. Then what each selector reads: blue where attention is, grey where it is wasted.",
                    sheet(mass, masks),
                )
            )
    return made


def sheet(mass: np.ndarray, masks: dict[str, np.ndarray]) -> str:
    """Return small maps side by side."""
    shade = np.sqrt(mass / np.maximum(mass.max(axis=1, keepdims=True), 1e-12))
    parts = _map(shade, np.ones(mass.shape, bool), "attention", 0)
    for place, (name, mask) in enumerate(masks.items(), start=1):
        parts += _map(shade, mask, f"{name}: {(mass * mask).sum() / mass.sum():.2f}", place)
    rows = -(-(len(masks) + 1) // PER_ROW)
    return document(PER_ROW * (SIDE + GAP), rows * (SIDE + TOP + GAP), parts, "maps of attention")


def _map(shade: np.ndarray, mask: np.ndarray, title: str, place: int) -> list[str]:
    left, top = (place % PER_ROW) * (SIDE + GAP), (place // PER_ROW) * (SIDE + TOP + GAP)
    wide, high = SIDE / shade.shape[1], SIDE / shade.shape[0]
    parts = [
        text(left, top + 14, title),
        f'<rect x="{left:g}" y="{top + TOP:g}" width="{SIDE:g}" height="{SIDE:g}" fill="none" stroke="var(--soft)"/>',
    ]
    for row, column in np.argwhere(mask):
        x, y = left + column * wide, top + TOP + row * high
        box = f'<rect x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{high:.2f}"'
        if place:
            parts.append(f'{box} fill="var(--soft)" fill-opacity="0.35"/>')
        if shade[row, column] >= 0.05:
            parts.append(f'{box} fill="var(--spot)" fill-opacity="{shade[row, column]:.2f}"/>')
    return parts
