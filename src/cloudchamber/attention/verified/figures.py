"""The report's picture of budgets: what each reads, and how often it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.study import Figure
from cloudchamber.core.svg import Scale, document, line, text

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

NAME, CELL, ROW, TOP = 150.0, 112.0, 34.0, 56.0


def figures(results: Results) -> list[Figure]:
    """One chart of all budgets and workloads."""
    cells = {}
    for workload in results.workloads:
        for policy in results.policies:
            found = [trial.outcome.metrics for trial in results.of(workload, policy) if not trial.outcome.is_void]
            if found:
                cells[workload, policy] = tuple(float(np.mean([each[key] for each in found])) for key in ("density", "failure_rate"))
    if not cells:
        return []
    deltas = {name: getattr(workload, "delta", 0.0) for name, workload in results.workloads.items()}
    caption = (
        "Each cell: share of the keys that is read (blue, above) and share of samples whose error exceeds epsilon (red, below), means over "
        "seeds. The dashed mark is the share that may."
    )
    return [Figure("What is read, and how often it is wrong", caption, chart(cells, deltas))]


def chart(cells: dict[tuple[str, str], tuple[float, ...]], deltas: dict[str, float]) -> str:
    """Return a table of bars: budgets by workloads."""
    workloads, policies = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    parts = [text(NAME, 14, "density", css="strong"), text(NAME + 76, 14, "failures", css="strong")]
    parts += [f'<rect x="{NAME + at:g}" y="6" width="12" height="8" fill="var(--{hue})"/>' for at, hue in ((54, "spot"), (130, "dead"))]
    for column, workload in enumerate(workloads):
        left = NAME + column * CELL
        bar = Scale(0, 1, left, left + CELL - 44)
        parts += [text(left, TOP - 8, workload), line(left, TOP, left, TOP + ROW * len(policies))]
        allowed = bar(deltas.get(workload, 0.0))
        for row, policy in enumerate(policies):
            y = TOP + row * ROW
            if not column:
                parts.append(text(0, y + 20, policy))
            if (workload, policy) not in cells:
                continue
            for i, (share, hue) in enumerate(zip(cells[workload, policy], ("spot", "dead"), strict=True)):
                at = y + 5 + 13 * i
                parts.append(
                    f'<rect x="{left:.1f}" y="{at:.1f}" width="{max(bar(share) - left, 0.5):.1f}" height="10" fill="var(--{hue})"/>'
                )
                parts.append(text(left + CELL - 40, at + 9, f"{share:.2f}"))
            parts.append(
                f'<line x1="{allowed:.1f}" y1="{y + 17:.1f}" x2="{allowed:.1f}" y2="{y + 29:.1f}" stroke="var(--ink)" '
                'stroke-dasharray="3 2" stroke-width="1"/>'
            )
    return document(NAME + CELL * len(workloads), TOP + ROW * len(policies) + 8, parts, "density and failures of every budget")
