"""The report's picture of band rules: width over distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.study import Figure
from cloudchamber.core.svg import PALETTE, Scale, document, line, text

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WIDTH, HEIGHT, LEFT, BOTTOM, KEY = 980.0, 280.0, 50.0, 34.0, 150.0


def figures(results: Results) -> list[Figure]:
    """One chart for each workload, of the first seed."""
    made = []
    for name in results.workloads:
        found = {t.policy: np.asarray(t.outcome.series["width"]) for t in results.of(name) if t.seed == 0 and not t.outcome.is_void}
        if found:
            made.append(
                Figure(
                    f"Bands of {name}",
                    "Width of the band in tokens, over the frames between query and key, both on logarithmic scales; 0 is left out. All "
                    "spend at most the same.",
                    chart(found),
                )
            )
    return made


def chart(found: dict[str, np.ndarray]) -> str:
    """Return one step line for each rule."""
    f = max(len(widths) for widths in found.values())
    top = max(float(widths.max()) for widths in found.values())
    x, y = Scale(0, np.log2(f + 1), LEFT, WIDTH - KEY), Scale(0, np.log2(top + 1), HEIGHT - BOTTOM, 10)
    parts = [text(LEFT, HEIGHT - 6, "frames apart"), text(4, 20, "tokens")]
    for power in range(int(np.log2(f + 1)) + 1):
        at = x(power)
        parts += [line(at, 10, at, HEIGHT - BOTTOM), text(at, HEIGHT - BOTTOM + 14, str(2**power - 1), anchor="middle")]
    for power in range(int(np.log2(top + 1)) + 1):
        parts += [line(LEFT, y(power), WIDTH - KEY, y(power)), text(LEFT - 6, y(power) + 4, str(2**power - 1), anchor="end")]
    for i, (name, widths) in enumerate(found.items()):
        colour = PALETTE[i % len(PALETTE)]
        dash = "" if i < len(PALETTE) else ' stroke-dasharray="4 3"'
        points = " ".join(f"{x(np.log2(d + 1)):.1f},{y(np.log2(w + 1)):.1f}" for d, w in enumerate(widths))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        parts.append(f'<rect x="{WIDTH - KEY + 12:g}" y="{14 + 18 * i:g}" width="12" height="4" fill="{colour}"/>')
        parts.append(text(WIDTH - KEY + 30, 20 + 18 * i, name))
    return document(WIDTH, HEIGHT, parts, "band widths")
