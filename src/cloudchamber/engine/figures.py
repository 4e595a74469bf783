"""The report's pictures of an LLM server: how latencies are spread, and what each request of one trial went through."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.outcome import Outcome
from cloudchamber.core.study import Figure
from cloudchamber.core.svg import Scale, document, line, lines, text

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WIDTH, LEFT, BAND = 980.0, 60.0, 180.0


def figures(results: Results) -> list[Figure]:
    """For each workload the distribution of latencies, and the requests of one seed under its policies."""
    made = []
    for name in results.workloads:
        found = [(policy, _latencies(results, name, policy)) for policy in results.policies]
        valid = [trial for trial in results.of(name) if not trial.outcome.is_void]
        if not valid:
            continue
        made.append(
            Figure(
                f"Latencies on {name}",
                "Share of requests (over all seeds) that were finished within so many seconds of their arrival. Means hide who paid.",
                spread([each for each in found if each[1].size]),
            )
        )
        seed = valid[0].seed
        made.append(
            Figure(
                f"Every request of {name}, seed {seed}",
                "A line is a request, in order of arrival from the top: pale while it waits, orange while its prompt is computed, blue "
                "while it is answered.",
                timeline([(trial.policy, trial.outcome) for trial in valid if trial.seed == seed][:4]),
            )
        )
    return made


def _latencies(results: Results, workload: str, policy: str) -> np.ndarray:
    found = [t.outcome.series["finish_s"] - t.outcome.series["arrival_s"] for t in results.of(workload, policy) if not t.outcome.is_void]
    return np.concatenate(found) if found else np.zeros(0)


def spread(found: Sequence[tuple[str, np.ndarray]]) -> str:
    """Return the distributions of several sets of seconds, up to the 99th percentile."""
    shares = np.linspace(0.01, 0.99, 99)
    return lines(
        [(name, np.quantile(values, shares).tolist(), (100 * shares).tolist()) for name, values in found],
        x_label="seconds from arrival to the last token", y_label="% of requests",
    )  # fmt: skip


def timeline(shown: Sequence[tuple[str, Outcome]]) -> str:
    """Return one panel for each policy, a line for each request, all on one time scale."""
    end = max(float(outcome.series["finish_s"].max()) for _, outcome in shown)
    x = Scale(0, end, LEFT, WIDTH - 12)
    parts, top = [], 0.0
    for name, outcome in shown:
        parts += _panel(name, outcome, x, top)
        top += BAND + 44
    return document(WIDTH, top, parts, f"requests under {', '.join(name for name, _ in shown)}")


def _panel(name: str, outcome: Outcome, x: Scale, top: float) -> list[str]:
    series = outcome.series
    n = len(series["arrival_s"])
    y = Scale(0, n, top + 22, top + 22 + BAND)
    parts = [
        text(LEFT, top + 14, name, css="strong"),
        text(WIDTH - 12, top + 14, f"mean latency {outcome.metrics['mean_latency_s']:.2f} s", anchor="end"),
        text(LEFT - 8, top + 34, "first", anchor="end"),
        text(LEFT - 8, top + 20 + BAND, "last", anchor="end"),
    ]
    parts += [line(x(tick), top + 22, x(tick), top + 22 + BAND) for tick in x.ticks(8)]
    parts += [text(x(tick), top + BAND + 36, f"{tick:g} s", anchor="middle") for tick in x.ticks(8)]
    height = max(0.6, BAND / n)
    stages = (("arrival_s", "admitted_s", "rule"), ("admitted_s", "first_token_s", "demand"), ("first_token_s", "finish_s", "spot"))
    for begin, end, colour in stages:  # one path for each stage: a rectangle for each request would be a large file
        spans = enumerate(zip(series[begin], series[end], strict=True))
        path = "".join(f"M{x(a):.1f} {y(i):.1f}H{x(b):.1f}" for i, (a, b) in spans if x(b) - x(a) > 0.1)
        parts.append(
            f'<path d="{path}" stroke="var(--{colour})" stroke-width="{height:.2f}"><title>{escape(f"{begin} to {end}")}</title></path>'
        )
    return parts
