"""The report's pictures of expert balancing: what each GPU carried window by window, and balance against moved weights."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.outcome import Outcome
from cloudchamber.core.study import Figure
from cloudchamber.core.svg import PALETTE, Scale, document, line, text

from .workloads import BalanceWorkload

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WIDTH, LEFT, RIGHT, ROW, HEAD = 980.0, 92.0, 250.0, 14.0, 24.0
FULL = 1.0  # excess over the mean, as a share of it, at which a cell has its full colour


def figures(results: Results) -> list[Figure]:
    """One map of device loads and one chart of balance against moved weights per workload, for the seed with the median ratio."""
    made = []
    for workload in results.workloads.values():
        assert isinstance(workload, BalanceWorkload)
        seed = _typical_seed(results, workload.name)
        if seed is None:
            continue
        where = f"{workload.name}, seed {seed}"
        made += [
            Figure(
                f"What each GPU carried: {where}",
                "The seed with the median ratio of the best policy, and in it the layer with the hottest experts. Each row is a window, "
                "each column a GPU: red above the mean load, blue below, full colour at twice the mean or nothing. The whole layer waits "
                "for the reddest cell of its row; on the right how red it is, and the experts moved before the window (in all layers).",
                load_map(results, workload.name, seed),
            ),
            Figure(
                f"Balance against moved weights: {workload.name}",
                "Means over seeds. Up is better balanced, left moves less; the dashed line is the bound.",
                _trade(results, workload.name),
            ),
        ]
    return made


def load_map(results: Results, workload: str, seed: int, names: tuple[str, ...] = ()) -> str:
    """Return one SVG: a map of device loads for each policy of a trial, best first (or those named, in order)."""
    outcomes = _outcomes(results, workload, seed)
    chosen = {name: outcomes[name] for name in names} if names else outcomes
    parts, top = [], 0.0
    for name, outcome in chosen.items():
        parts.append(f'<g transform="translate(0 {top:.0f})">{"".join(_panel(name, outcome))}</g>')
        top += HEAD + ROW * len(outcome.series["sent"]) + 12
    return document(WIDTH, top, parts, f"device loads of {', '.join(chosen)}")


def _typical_seed(results: Results, workload: str) -> int | None:
    """The seed with the median ratio of the most balanced policy."""
    rows = [row for row in results.summary() if row.workload == workload and row.mean is not None]
    if not rows:
        return None
    best = max(rows, key=lambda row: row.mean or 0.0).policy
    ranked = sorted(results.of(workload, best), key=lambda trial: trial.ratio(results.study.objective) or 0.0)
    return ranked[len(ranked) // 2].seed


def _outcomes(results: Results, workload: str, seed: int) -> dict[str, Outcome]:
    """The valid outcomes of one trial, the most balanced first; the optimum before them where it is known."""
    there = [trial for trial in results.of(workload) if trial.seed == seed]
    valid = {trial.policy: trial.outcome for trial in there if not trial.outcome.is_void}
    ordered = dict(sorted(valid.items(), key=lambda item: -item[1].metrics["balancedness"]))
    bound = there[0].bound
    return {"optimum": bound.outcome, **ordered} if bound and bound.outcome else ordered


def _panel(name: str, outcome: Outcome) -> list[str]:
    """One policy: a row of cells per window."""
    loads, sent = np.asarray(outcome.series["device_load"], dtype=float), outcome.series["sent"]
    windows, devices = loads.shape
    width = (WIDTH - LEFT - RIGHT) / devices
    metrics = outcome.metrics
    parts = [
        text(LEFT, 15, name, css="strong"),
        text(WIDTH - 8, 15, f"balancedness {metrics['balancedness']:.3f}, moved {metrics['moved_gb']:,.0f} GB", anchor="end"),
    ]
    for t in range(windows):
        y, mean = HEAD + t * ROW, max(loads[t].mean(), 1e-12)
        parts.append(text(LEFT - 8, y + 11, f"window {t + 1}", anchor="end"))
        for g in range(devices):
            away = loads[t, g] / mean - 1
            colour, opacity = ("var(--dead)" if away > 0 else "var(--spot)"), min(abs(away) / FULL, 1.0)
            label = f"{name}, window {t + 1}, GPU {g}: {loads[t, g]:,.0f} tokens, {away:+.0%} of the mean"
            parts.append(
                f'<rect x="{LEFT + g * width:.1f}" y="{y:.0f}" width="{width - 1:.1f}" height="{ROW - 1:.0f}" '
                f'fill="{colour}" fill-opacity="{opacity:.2f}"><title>{escape(label)}</title></rect>'
            )
        moved = f", {int(sent[t])} moved" if sent[t] else ""
        parts.append(text(WIDTH - RIGHT + 10, y + 11, f"hottest {loads[t].max() / mean:.2f} of the mean{moved}"))
    parts.append(
        f'<rect x="{LEFT - 1:.1f}" y="{HEAD - 1:.0f}" width="{devices * width + 1:.1f}" height="{windows * ROW + 1:.0f}" '
        f'fill="none" stroke="var(--rule)"/>'
    )
    return parts


def _trade(results: Results, workload: str) -> str:
    """A point per policy: mean balancedness over mean moved weights."""
    points: dict[str, tuple[float, float]] = {}
    for name in results.policies:
        trials = results.of(workload, name)
        if trials and not any(trial.outcome.is_void for trial in trials):
            moved, balance = (_mean([trial.outcome.metrics for trial in trials], key) for key in ("moved_gb", "balancedness"))
            points[name] = (moved, balance)
    bounds = [trial.bound.value for trial in results.of(workload) if trial.bound is not None]
    height, bottom = 300.0, 260.0
    x = Scale(0, max(1e-9, *(moved for moved, _ in points.values())) * 1.05, 60, WIDTH - 24)
    y = Scale(0, 1.02, bottom, 12)
    parts = []
    for tick in x.ticks(8):
        parts += [line(x(tick), 12, x(tick), bottom), text(x(tick), bottom + 15, f"{tick:g}", anchor="middle")]
    for tick in y.ticks(5):
        parts += [line(60, y(tick), WIDTH - 24, y(tick)), text(54, y(tick) + 4, f"{tick:.1f}", anchor="end")]
    parts.append(text(WIDTH / 2, height - 6, "GB moved between GPUs in a trial", anchor="middle"))
    if bounds:
        at = y(sum(bounds) / len(bounds))
        parts.append(f'<line x1="60" x2="{WIDTH - 24:.0f}" y1="{at:.1f}" y2="{at:.1f}" stroke="var(--ink)" stroke-dasharray="5 4"/>')
    legend = []
    for i, (name, (moved, balance)) in enumerate(points.items()):
        colour = PALETTE[i % len(PALETTE)]
        shape = f'fill="{colour}"' if i < len(PALETTE) else f'fill="none" stroke="{colour}" stroke-width="2"'
        label = f"{name}: balancedness {balance:.4f}, {moved:,.1f} GB"
        parts.append(f'<circle cx="{x(moved):.1f}" cy="{y(balance):.1f}" r="6" {shape}><title>{escape(label)}</title></circle>')
        legend.append(f'<span><i style="background:{colour}"></i>{escape(label)}</span>')
    return document(WIDTH, height, parts, "balancedness against moved weights") + f'<p class="legend">{"".join(legend)}</p>'


def _mean(metrics: list[Mapping[str, float]], key: str) -> float:
    return sum(each[key] for each in metrics) / len(metrics)
