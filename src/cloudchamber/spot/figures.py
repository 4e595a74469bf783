"""The report's pictures of spot scheduling: where each policy ran over the zones' availability, its slack, and the bills."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.outcome import Outcome
from cloudchamber.core.study import Figure
from cloudchamber.core.svg import Scale, document, line, lines, text

from .simulator import changes
from .twin import runs
from .workloads import SpotWorkload, World

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WIDTH, LEFT, ROW, SLACK = 980.0, 172.0, 12.0, 44.0
_COLOUR = {1: "var(--spot)", 2: "var(--demand)"}


def figures(results: Results) -> list[Figure]:
    """One time line and one chart of bills per workload, for the start with the median ratio of the best policy."""
    made = []
    for workload in results.workloads.values():
        assert isinstance(workload, SpotWorkload)
        seed = _typical_seed(results, workload.name)
        if seed is not None:
            made += _of_workload(workload, seed, _outcomes(results, workload.name, seed))
    return made


def timeline(results: Results, workload: str, seed: int) -> str:
    """Return one SVG: the optimum and every policy in one trial, over the zones' availability."""
    chosen = results.workloads[workload]
    assert isinstance(chosen, SpotWorkload)
    return _timeline(chosen.world(seed), _outcomes(results, workload, seed))


def _timeline(world: World, outcomes: Mapping[str, Outcome]) -> str:
    least_usd = next(iter(outcomes.values())).metrics["cost_usd"]
    parts, top = [f"<defs>{_availability(world)}</defs>"], 0.0
    height = 22 + len(world.market.zones) * ROW + SLACK + 24
    for name, outcome in outcomes.items():
        parts.append(f'<g transform="translate(0 {top:.0f})">{"".join(_panel(name, outcome, world, least_usd))}</g>')
        top += height
    return document(WIDTH, top, parts, f"time lines of {', '.join(outcomes)}")


def _typical_seed(results: Results, workload: str) -> int | None:
    """The seed with the median ratio of the cheapest policy that cannot see the future."""
    metric = results.study.objective
    rows = [row for row in results.summary() if row.workload == workload and row.mean is not None and row.policy not in results.clairvoyant]
    if not rows:
        return None
    best = min(rows, key=lambda row: row.mean or 0.0).policy
    ranked = sorted(results.of(workload, best), key=lambda trial: trial.ratio(metric) or 0.0)
    return ranked[len(ranked) // 2].seed


def _outcomes(results: Results, workload: str, seed: int) -> dict[str, Outcome]:
    """The optimum and every valid outcome of one trial, cheapest first."""
    metric = results.study.objective
    there = [trial for trial in results.of(workload) if trial.seed == seed]
    valid = {trial.policy: trial.outcome for trial in there if not trial.outcome.is_void}
    ordered = dict(sorted(valid.items(), key=lambda item: item[1].metrics[metric.name]))
    bound = there[0].bound
    return {"optimum": bound.outcome, **ordered} if bound and bound.outcome else ordered


def _of_workload(workload: SpotWorkload, seed: int, outcomes: Mapping[str, Outcome]) -> list[Figure]:
    world = workload.world(seed)
    hours = world.market.tick_s / 3600
    least = next(iter(outcomes.values())).metrics["cost_usd"]
    bills = [
        (name, *_thinned(np.arange(len(outcome.series["cost_usd"])) * hours, outcome.series["cost_usd"]))
        for name, outcome in outcomes.items()
        if outcome.metrics["cost_usd"] < 4 * least
    ]
    where = f"{workload.name}, start {seed} (hour {world.start_h:.0f} of the trace)"
    return [
        Figure(
            f"Where each policy ran: {where}",
            "The start with the median ratio of the best policy. Each row is a zone with its spot price in USD/h, shaded "
            "while it has capacity. Blue: the job on spot; orange: on demand; red ticks: preemptions. "
            "Below each: the slack, the hours the job could still waste; at the dashed line only on-demand is left. Hover for details.",
            _legend() + _timeline(world, outcomes),
        ),
        Figure(
            f"What each policy paid: {where}",
            "Cumulative cost; policies beyond four times the optimum are left out so that the others can be told apart.",
            lines(bills, x_label="hours since the start", y_label="USD"),
        ),
    ]


def _legend() -> str:
    items = (
        ("var(--up)", "spot capacity"),
        ("var(--spot)", "job on spot"),
        ("var(--demand)", "job on demand"),
        ("var(--dead)", "preemption"),
        ("var(--slack)", "slack"),
    )
    return '<p class="legend">' + "".join(f'<span><i style="background:{colour}"></i>{name}</span>' for colour, name in items) + "</p>"


def _time_scale(world: World) -> Scale:
    return Scale(0, world.job.deadline, LEFT, WIDTH - 12)


def _availability(world: World) -> str:
    """All zones' capacity as one path, drawn once and used by every panel."""
    x, path = _time_scale(world), []
    for zone in range(len(world.market.zones)):
        lengths, states = runs(world.market.available[:, zone])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        for start, length in zip(starts[states], lengths[states], strict=True):
            path.append(f"M{x(start):.1f} {zone * ROW:.0f}h{x(start + length) - x(start):.1f}v{ROW - 2:.0f}H{x(start):.1f}z")
    return f'<path id="{_id(world)}" d="{"".join(path)}" fill="var(--up)"/>'


def _id(world: World) -> str:
    return "up" + hashlib.sha256(world.market.available.tobytes()).hexdigest()[:12]


def _panel(name: str, outcome: Outcome, world: World, least_usd: float) -> list[str]:
    """One policy: its episodes over the zones, and its slack below."""
    x, zones = _time_scale(world), world.market.zones
    bottom = 22 + len(zones) * ROW
    cost = outcome.metrics["cost_usd"]
    parts = [
        text(LEFT, 14, name, css="strong"),
        text(WIDTH - 12, 14, f"{cost:,.2f} USD" + (f", {cost / least_usd:.2f} of the optimum" if least_usd else ""), anchor="end"),
        f'<use href="#{_id(world)}" y="22"/>',
    ]
    for i, zone in enumerate(zones):
        parts.append(text(LEFT - 8, 22 + i * ROW + 9, f"{zone.name}  {world.market.spot_usd_h[0, i]:.2f}", anchor="end", css="zone"))
    parts += _episodes(outcome.series, world, x)
    parts += _slack(outcome.series, world, x, bottom)
    height = bottom + SLACK + 24
    for tick in Scale(0, world.job.deadline * world.market.tick_s / 3600, 0, 1).ticks(10):
        at = x(tick * 3600 / world.market.tick_s)
        parts += [line(at, 22, at, height - 18), text(at, height - 5, f"{tick:g} h", anchor="middle")]
    return parts


def _episodes(series: Mapping[str, Any], world: World, x: Scale) -> list[str]:
    state, zone, cost = series["state"], series["zone"], series["cost_usd"]
    hours, parts = world.market.tick_s / 3600, []
    starts = changes(state, zone)
    for start, end in zip(starts, [*starts[1:], len(state)], strict=True):
        if state[start] == 0:
            continue
        y = 22 + int(zone[start]) * ROW
        died = state[start] == 1 and end < len(state) and not world.market.available[end, zone[start]]
        label = (
            f"{world.market.zones[zone[start]].name}, {'spot' if state[start] == 1 else 'on demand'}, "
            f"{start * hours:.1f} to {end * hours:.1f} h, paid {cost[end] - cost[start]:.2f} USD{', preempted' if died else ''}"
        )
        parts.append(
            f'<rect x="{x(start):.1f}" y="{y:.0f}" width="{max(x(end) - x(start), 1):.1f}" height="{ROW - 2:.0f}" '
            f'fill="{_COLOUR[int(state[start])]}"><title>{escape(label)}</title></rect>'
        )
        if died:
            parts.append(f'<rect x="{x(end) - 1:.1f}" y="{y - 2:.0f}" width="2" height="{ROW + 2:.0f}" fill="var(--dead)"/>')
    return parts


def _slack(series: Mapping[str, Any], world: World, x: Scale, top: float) -> list[str]:
    """Slack (T - t) - (P - p) over time, and the line at which the guard goes on demand."""
    progress = series["progress"]
    ticks = np.arange(len(progress))
    slack = (world.job.deadline - ticks) - (world.job.work - progress)
    y = Scale(0, max(world.job.deadline - world.job.work, 1), top + SLACK, top + 6)
    at, values = _thinned(ticks, slack)
    points = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in zip(at, values, strict=True))
    hours = world.market.tick_s / 3600
    limit = y(world.job.cold_start)
    return [
        f'<polyline points="{points}" fill="none" stroke="var(--slack)" stroke-width="1.5"/>',
        f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{limit:.1f}" y2="{limit:.1f}" stroke="var(--dead)" stroke-dasharray="4 3"/>',
        text(LEFT - 8, top + 16, f"slack {slack[0] * hours:.0f} h", anchor="end"),
        text(LEFT - 8, top + SLACK, "0 h", anchor="end"),
    ]


def _thinned(xs: np.ndarray, ys: np.ndarray) -> tuple[list[float], list[float]]:
    """The corners of a piecewise linear series, so that its path is short."""
    xs, ys = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    bend = np.abs(np.diff(ys, 2)) > 1e-3 * max(float(np.ptp(ys)), 1e-9) / 10
    keep = np.flatnonzero(np.concatenate([[True], bend, [True]]))
    return xs[keep].tolist(), ys[keep].tolist()
