"""The report's pictures of broadcasting: the trees of one job under every policy, and what all jobs cost."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from cloudchamber.core.outcome import Outcome
from cloudchamber.core.study import Figure
from cloudchamber.core.svg import Scale, document, text

from .model import BroadcastSpec, Edge, Job
from .totals import totals
from .workloads import BroadcastWorkload

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WIDTH, LEFT, ROW = 980.0, 170.0, 24.0
_COLOUR = {"aws": "var(--demand)", "azure": "var(--spot)", "gcp": "var(--slack)"}


def figures(results: Results) -> list[Figure]:
    """One chart of bills per workload, and the trees of the job on which the policies differ most."""
    made = []
    for workload in results.workloads.values():
        assert isinstance(workload, BroadcastWorkload)
        made.append(
            Figure(
                f"What all jobs of {workload.name} cost",
                "USD over all jobs: egress and VMs. The dashed line is the bound.",
                bills_chart(totals(results, workload.name)),
            )
        )
        seed = _telling_seed(results, workload.name)
        if seed is not None:
            made.append(
                Figure(
                    f"Over which links the data went: {workload.name}, job {seed}",
                    "From left to right, every region gets the data from the one before it. A filled dot needs the data, a ring only "
                    "relays it; the colour is the provider. Numbers are USD/GB; thick lines are dear, the dashed one decides the time.",
                    _legend() + trees_chart(results, workload.name, seed),
                )
            )
    return made


def bills_chart(found: Mapping[str, float]) -> str:
    """Return bars of the bills, cheapest first."""
    if not found:
        return document(WIDTH, 20, [text(0, 14, "every policy is void")], "no bills")
    x = Scale(0, max(found.values()) * 1.08, LEFT, WIDTH - 70)
    parts = []
    for row, (name, usd) in enumerate(found.items()):
        top = row * 22.0 + 4
        colour = "var(--soft)" if name == "bound" else "var(--spot)"
        parts += [
            text(LEFT - 8, top + 13, name, anchor="end"),
            f'<rect x="{LEFT:.1f}" y="{top:.1f}" width="{x(usd) - LEFT:.1f}" height="16" fill="{colour}"/>',
            text(x(usd) + 6, top + 13, f"{usd:,.2f}"),
        ]
    height = len(found) * 22.0 + 8
    at = x(found["bound"])
    parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height:.0f}" stroke="var(--ink)" stroke-dasharray="4 3"/>')
    return document(WIDTH, height, parts, "bill of every policy")


def trees_chart(results: Results, workload: str, seed: int, policies: tuple[str, ...] = ()) -> str:
    """Return one panel per policy (all without names): its links, from the source rightwards."""
    chosen = results.workloads[workload]
    assert isinstance(chosen, BroadcastWorkload)
    spec, job = chosen.world(seed)
    there = [trial for trial in results.of(workload) if trial.seed == seed and not trial.outcome.is_void]
    shown = [trial for trial in there if not policies or trial.policy in policies]
    shown.sort(key=lambda trial: trial.outcome.metrics["cost_usd"])
    parts, top = [], 0.0
    for trial in shown:
        panel, height = _panel(trial.policy, trial.outcome, spec, job)
        parts.append(f'<g transform="translate(0 {top:.0f})">{"".join(panel)}</g>')
        top += height + 14
    return document(WIDTH, top, parts, f"trees of {', '.join(trial.policy for trial in shown)}")


def _telling_seed(results: Results, workload: str) -> int | None:
    """The job with the median spread of bills over policies."""
    spread = {}
    for seed in sorted({trial.seed for trial in results.of(workload)}):
        costs = [t.outcome.metrics["cost_usd"] for t in results.of(workload) if t.seed == seed and not t.outcome.is_void]
        if costs:
            spread[seed] = max(costs) / max(min(costs), 1e-12)
    return sorted(spread, key=spread.__getitem__)[len(spread) // 2] if spread else None


def _panel(name: str, outcome: Outcome, spec: BroadcastSpec, job: Job) -> tuple[list[str], float]:
    links: list[Edge] = [(int(a), int(b)) for a, b in outcome.series["links"]]
    place, rows, columns = _layout(links, job)
    step = (WIDTH - LEFT - 60) / max(columns, 1)

    def at(region: int) -> tuple[float, float]:
        column, row = place[region]
        return 24 + column * step, 36 + row * ROW

    givers = {a for a, _ in links}
    dearest = max(float(spec.price_usd_gb[link]) for link in links)
    flows = dict(zip(links, outcome.series["flow_gbps"].tolist(), strict=True))
    counts = dict(zip(links, outcome.series["partitions"].tolist(), strict=True))
    slowest = min(links, key=lambda link: flows[link] / (counts[link] if spec.shared else 1))
    metrics = outcome.metrics
    parts = [
        text(24, 14, name, css="strong"),
        text(WIDTH - 12, 14, f"{metrics['cost_usd']:,.2f} USD, {metrics['time_s']:,.1f} s", anchor="end"),
    ]
    for link in links:
        (x1, y1), (x2, y2) = at(link[0]), at(link[1])
        usd_gb = float(spec.price_usd_gb[link])
        dash = ' stroke-dasharray="5 3"' if link == slowest else ""
        label = (
            f"{spec.regions[link[0]]} to {spec.regions[link[1]]}: {usd_gb:g} USD/GB, {flows[link]:.1f} Gbit/s, {counts[link]} partitions"
        )
        parts += [
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="var(--soft)" '
            f'stroke-width="{0.8 + 4 * usd_gb / dearest:.1f}" stroke-opacity="0.6"{dash}><title>{escape(label)}</title></line>',
            text(x1 + 0.62 * (x2 - x1), y1 + 0.62 * (y2 - y1) - 3, f"{usd_gb:g}", anchor="middle"),
        ]
    for region in place:
        x, y = at(region)
        provider = spec.regions[region].split(":")[0]
        colour = _COLOUR.get(provider, "var(--ink)")
        label = spec.regions[region].split(":", maxsplit=1)[-1]
        fill = colour if region in (job.source, *job.destinations) else "var(--paper, #fff)"
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>',
            # above the links that leave it
            text(x - 5, y - 9, label, css="zone") if region in givers else text(x + 9, y + 4, label, css="zone"),
        ]
    return parts, 36 + rows * ROW


def _layout(links: list[Edge], job: Job) -> tuple[dict[int, tuple[int, float]], int, int]:
    """Return column and row of every region (first ways from the source), and how many rows and columns there are."""
    children: dict[int, list[int]] = {}
    seen, queue = {job.source}, [job.source]
    for here in queue:
        for a, b in links:
            if a == here and b not in seen:
                seen.add(b)
                queue.append(b)
                children.setdefault(here, []).append(b)
    place: dict[int, tuple[int, float]] = {}
    rows = 0

    def put(region: int, column: int) -> float:
        nonlocal rows
        below = [put(child, column + 1) for child in children.get(region, ())]
        row = (below[0] + below[-1]) / 2 if below else float(rows)
        rows += not below
        place[region] = (column, row)
        return row

    put(job.source, 0)
    return place, rows, max(column for column, _ in place.values())


def _legend() -> str:
    return '<p class="legend">' + "".join(f'<span><i style="background:{c}"></i>{name}</span>' for name, c in _COLOUR.items()) + "</p>"
