"""Small inline SVG charts for reports: scales, a strip of points, lines. Colours are CSS variables of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

PALETTE = tuple(f"var(--c{i})" for i in range(8))


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to pixels in [start, end], linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        at = math.log(value) if self.is_log else value
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the scale, about ``count`` of them."""
        if self.is_log:
            steps = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0)
            inside = [step for step in steps if self.low <= step <= self.high]
            return inside[:: max(1, -(-len(inside) // count))]
        raw = max(self.high - self.low, 1e-12) / count
        power = 10 ** math.floor(math.log10(raw))
        step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [step * k for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def text(x: float, y: float, content: str, *, anchor: str = "start", css: str = "") -> str:
    """Return a text element."""
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str = "grid") -> str:
    """Return a line element."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def document(width: float, height: float, parts: Sequence[str], label: str, css: str = "figure") -> str:
    """Return the SVG element around its parts, with a label for screen readers."""
    return (
        f'<svg class="{css}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def strip(values: Sequence[float], scale: Scale, label: str, height: float = 26) -> str:
    """Return one row of a distribution: a dot per value, a bar at the median, light lines at the scale's ticks."""
    middle = height / 2
    parts = [line(scale(tick), 0, scale(tick), height) for tick in scale.ticks()]
    for value in values:
        parts.append(
            f'<circle cx="{scale(min(max(value, scale.low), scale.high)):.1f}" cy="{middle}" r="4" class="dot">'
            f"<title>{value:.3f}</title></circle>"
        )
    if values:
        ordered = sorted(values)
        median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        parts.append(line(scale(median), 3, scale(median), height - 3, "median"))
    return document(scale.end + 8, height, parts, label, "strip")


def strip_axis(scale: Scale) -> str:
    """Return the axis that belongs to a column of strips."""
    parts = [text(scale(tick), 13, f"{tick:g}", anchor="middle") for tick in scale.ticks()]
    return document(scale.end + 8, 18, parts, "axis of the ratio to the bound", "strip")


def lines(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]], *, x_label: str, y_label: str, width: float = 900, height: float = 300
) -> str:
    """Return a line chart with a legend; each series is (name, xs, ys)."""
    left, right, top, bottom = 60.0, 12.0, 12.0, 40.0
    x = Scale(0, max(max(xs) for _, xs, _ in series), left, width - right)
    y = Scale(0, max(max(ys) for _, _, ys in series) * 1.02, height - bottom, top)
    parts = []
    for tick in x.ticks(8):
        parts += [line(x(tick), top, x(tick), height - bottom), text(x(tick), height - bottom + 15, f"{tick:g}", anchor="middle")]
    for tick in y.ticks(5):
        parts += [line(left, y(tick), width - right, y(tick)), text(left - 6, y(tick) + 4, f"{tick:,g}", anchor="end")]
    parts.append(text((left + width - right) / 2, height - 6, x_label, anchor="middle"))
    parts.append(
        f'<text transform="translate(14 {(top + height - bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    legend = []
    for i, (name, xs, ys) in enumerate(series):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        dash = ' stroke-dasharray="6 3"' if i >= len(PALETTE) else ""
        colour = PALETTE[i % len(PALETTE)]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}><title>{escape(name)}</title></polyline>'
        )
        legend.append(f'<span><i style="background:{colour}"></i>{escape(name)}</span>')
    return document(width, height, parts, f"{y_label} against {x_label}") + f'<p class="legend">{"".join(legend)}</p>'
