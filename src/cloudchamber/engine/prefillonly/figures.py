"""The report's pictures of prefill-only serving: latency over the load, and what each choice of lam costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.study import Figure
from cloudchamber.core.svg import Scale, document, line, text
from cloudchamber.engine.figures import spread

from .workloads import PrefillWorkload

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

LAMS = (0.0, 50.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 20_000.0, 1e12)
SEEDS = 3
WIDTH, LEFT, RIGHT, HEIGHT = 900.0, 70.0, 840.0, 310.0


def figures(results: Results) -> list[Figure]:
    """The spread of latencies of each workload, and the curve over lam where it was studied."""
    made = []
    for name in results.workloads:
        found = [(policy, _latencies(results, name, policy)) for policy in results.policies]
        known = [each for each in found if each[1].size]
        if known:
            made.append(Figure(f"Latencies on {name}", "Share of requests answered within so many seconds.", spread(known)))
    post = results.workloads.get("post")
    if isinstance(post, PrefillWorkload) and "CalibratedSJF" in results.policies:
        made.append(
            Figure(
                "What lam trades on post",
                "Mean (blue) and 99th percentile (orange) of the latency, on a logarithmic axis, for each lam that was tried. At the right "
                "end the order is that of arrival.",
                curve(lam_curve(post)),
            )
        )
    return made


def _latencies(results: Results, workload: str, policy: str) -> np.ndarray:
    found = [t.outcome.series["finish_s"] - t.outcome.series["arrival_s"] for t in results.of(workload, policy) if not t.outcome.is_void]
    return np.concatenate(found) if found else np.zeros(0)


def lam_curve(workload: PrefillWorkload, seeds: int = SEEDS) -> list[tuple[float, float, float]]:
    """Return lam, mean latency and 99th percentile (s), averaged over seeds."""
    from .policies.calibrated_sjf import CalibratedSJF
    from .study import PrefillStudy

    rows = []
    for lam in LAMS:
        found = [PrefillStudy().trial(CalibratedSJF(lam), workload, seed).metrics for seed in range(seeds)]
        rows.append(
            (lam, float(np.mean([each["mean_latency_s"] for each in found])), float(np.mean([each["p99_latency_s"] for each in found])))
        )
    return rows


def curve(rows: list[tuple[float, float, float]]) -> str:
    """Return the chart of :func:`lam_curve`; places on the horizontal axis are the values tried."""
    values = [value for row in rows for value in row[1:]]
    y = Scale(min(values) / 1.1, max(values) * 1.1, HEIGHT - 50, 12, is_log=True)
    x = Scale(0, len(rows) - 1, LEFT, RIGHT)
    parts = [text(16, 10, "s", css="strong")]
    for tick in (5, 10, 20, 50, 100, 200, 500, 1000):
        if y.low <= tick <= y.high:
            parts += [line(LEFT, y(tick), RIGHT, y(tick)), text(LEFT - 8, y(tick) + 4, f"{tick:g}", anchor="end")]
    for i, (lam, _, _) in enumerate(rows):
        parts.append(text(x(i), HEIGHT - 28, f"{lam:g}" if lam < 1e9 else "arrival", anchor="middle"))
    parts.append(text((LEFT + RIGHT) / 2, HEIGHT - 8, "lam (missing tokens a second of waiting is worth)", anchor="middle"))
    for column, colour, name in ((1, "spot", "mean"), (2, "demand", "p99")):
        points = " ".join(f"{x(i):.1f},{y(row[column]):.1f}" for i, row in enumerate(rows))
        parts.append(f'<polyline points="{points}" fill="none" stroke="var(--{colour})" stroke-width="2"><title>{name}</title></polyline>')
        for i, row in enumerate(rows):
            label = f"<title>{name} {row[column]:.1f} s</title>"
            parts.append(f'<circle cx="{x(i):.1f}" cy="{y(row[column]):.1f}" r="4" fill="var(--{colour})">{label}</circle>')
        parts.append(text(RIGHT + 10, y(rows[-1][column]) + 4, name, css="strong"))
    return document(WIDTH, HEIGHT, parts, "mean and 99th percentile of the latency against lam")
