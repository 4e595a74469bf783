"""The report's pictures of transaction scheduling: when each transaction ran, what the last one waited for, and the mean over workloads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.outcome import Outcome
from cloudchamber.core.study import Figure
from cloudchamber.core.svg import Scale, document, line, text

from .model import WRITE
from .optimum import key_bounds
from .simulator import Schedule, Simulator, waited_for
from .workloads import TxnWorkload

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WIDTH, LEFT, ROWS = 980.0, 44.0, 200.0
BASELINES = ("SMF", "FIFO", "Random")


def figures(results: Results) -> list[Figure]:
    """The mean over workloads, and for each workload the schedules of the best policy and of the baselines."""
    made = [_means(results)] if len(results.workloads) > 1 else []
    for name, workload in results.workloads.items():
        assert isinstance(workload, TxnWorkload)
        outcomes = chosen_outcomes(results, name)
        if outcomes:
            made.append(
                Figure(
                    f"When each transaction ran: {name}, seed 0",
                    "Each row is a transaction, sorted by its start. Dark: it writes the key that is fought over most; blue: it reads it. "
                    "Orange: the chain of waits that made the last one late. A good order keeps the hot key busy in every slot, and starts "
                    "transactions whose work overlaps side by side.",
                    _legend() + timeline(workload.world(0), outcomes),
                )
            )
    return made


def chosen_outcomes(results: Results, workload: str) -> dict[str, Outcome]:
    """The best policy of seed 0 and the baselines, where they are valid."""
    metric = results.study.objective.name
    valid = {t.policy: t.outcome for t in results.of(workload) if t.seed == 0 and not t.outcome.is_void}
    if not valid:
        return {}
    best = min(valid, key=lambda name: valid[name].metrics[metric])
    return {name: valid[name] for name in dict.fromkeys((best, *BASELINES)) if name in valid}


def timeline(world: Simulator, outcomes: Mapping[str, Outcome]) -> str:
    """Return one SVG: a panel for each outcome on a common scale of slots."""
    most = max((outcome.metrics["makespan_slots"] for outcome in outcomes.values()), default=1.0)
    x = Scale(0, max(most, 1), LEFT, WIDTH - 12)
    hot = max(key_bounds(world.batch, world.spec.model), key=lambda each: each[1], default=(-1, 0))[0]
    row = min(10.0, ROWS / max(len(world.batch), 1))
    height = 22 + row * len(world.batch) + 24
    parts = []
    for i, (name, outcome) in enumerate(outcomes.items()):
        parts.append(f'<g transform="translate(0 {i * height:.0f})">{"".join(_panel(name, outcome, world, x, row, hot))}</g>')
    return document(WIDTH, height * len(outcomes), parts, f"schedules of {', '.join(outcomes)}")


def _panel(name: str, outcome: Outcome, world: Simulator, x: Scale, row: float, hot: int) -> list[str]:
    batch = world.batch
    start, end = outcome.series["start"], outcome.series["end"]
    rank = np.empty(len(batch), dtype=np.int64)
    rank[np.lexsort((end, start))] = np.arange(len(batch))
    bottom = 22 + row * len(batch)
    parts = [
        text(LEFT, 14, name, css="strong"),
        text(WIDTH - 12, 14, f"{outcome.metrics['makespan_slots']:.0f} slots", anchor="end"),
    ]
    for tick in x.ticks(10):
        parts += [line(x(tick), 22, x(tick), bottom), text(x(tick), bottom + 14, f"{tick:g}", anchor="middle")]
    owner = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
    boxes: dict[str, list[str]] = {"var(--up)": [], "var(--spot)": [], "var(--c0)": []}
    for t in range(len(batch)):
        boxes["var(--up)"].append(_box(x, start[t], end[t], 22 + rank[t] * row, row))
    for i in np.flatnonzero(batch.key == hot):
        t = owner[i]
        at = start[t] + batch.position[i]
        boxes["var(--c0)" if batch.kind[i] == WRITE else "var(--spot)"].append(_box(x, at, at + 1, 22 + rank[t] * row, row))
    parts += [f'<path d="{"".join(each)}" fill="{colour}"/>' for colour, each in boxes.items() if each]
    chain = waited_for(world, Schedule(tuple(outcome.series["order"].tolist()), start, end))
    points = " ".join(f"{x(start[t]):.1f},{22 + (rank[t] + 0.5) * row:.1f}" for t, _ in chain)
    last = chain[-1][0]
    parts.append(
        f'<polyline points="{points} {x(end[last]):.1f},{22 + (rank[last] + 0.5) * row:.1f}" fill="none" stroke="var(--demand)" '
        f'stroke-width="1.5"><title>{len(chain)} transactions, each waiting for the one before</title></polyline>'
    )
    return parts


def _box(x: Scale, start: float, end: float, y: float, row: float) -> str:
    gap = 0.15 * row
    return f"M{x(start):.1f} {y + gap:.2f}H{x(end):.1f}v{row - 2 * gap:.2f}H{x(start):.1f}z"


def _legend() -> str:
    items = (
        ("var(--up)", "transaction"),
        ("var(--c0)", "writes the hottest key"),
        ("var(--spot)", "reads it"),
        ("var(--demand)", "chain of waits"),
    )
    return '<p class="legend">' + "".join(f'<span><i style="background:{colour}"></i>{name}</span>' for colour, name in items) + "</p>"


def _means(results: Results) -> Figure:
    """Bars: the geometric mean over workloads of each policy's ratio to the bound, so that no workload outweighs the others."""
    ratios: dict[str, list[float]] = {}
    for each in results.summary():
        if each.ratio is not None:
            ratios.setdefault(each.policy, []).append(each.ratio)
    whole = {name: each for name, each in ratios.items() if len(each) == len(results.workloads)}
    means = sorted((math.exp(sum(map(math.log, each)) / len(each)), name) for name, each in whole.items())
    x = Scale(1.0, max([mean for mean, _ in means], default=2.0) * 1.05, 170, WIDTH - 60)
    parts = []
    for i, (mean, name) in enumerate(means):
        y = 6 + 20 * i
        parts += [
            text(162, y + 11, name, anchor="end"),
            f'<rect x="170" y="{y}" width="{max(x(mean) - 170, 1):.1f}" height="14" fill="var(--spot)"/>',
            text(x(mean) + 6, y + 11, f"{mean:.2f}"),
        ]
    return Figure(
        "Over all workloads alike",
        "Geometric mean over the workloads of the ratio to the bound. 1 is the bound, which an order may not be able to reach.",
        document(WIDTH, 12 + 20 * len(means), parts, "geometric mean of ratios by policy"),
    )
