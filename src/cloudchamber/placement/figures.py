"""The report's pictures of placement: the published score of every policy, and what lies on every GPU in one instance."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.outcome import Outcome
from cloudchamber.core.study import Figure
from cloudchamber.core.svg import Scale, document, line, text

from .model import Instance
from .score import scores
from .workloads import PlacementWorkload

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

WIDTH, LEFT, BAR = 980.0, 150.0, 150.0


def figures(results: Results) -> list[Figure]:
    """One chart of scores per workload, and the GPUs of the instance with the median ratio of the first policy above the optimum."""
    made = []
    for workload in results.workloads.values():
        assert isinstance(workload, PlacementWorkload)
        made.append(
            Figure(
                f"Score on {workload.name}",
                "1 / mean kvpr over the instances, as published; higher is better. The dashed line is the bound.",
                score_chart(scores(results, workload.name)),
            )
        )
        seed = _telling_seed(results, workload.name)
        if seed is not None:
            made.append(
                Figure(
                    f"What lies on every GPU: {workload.name}, instance {seed}",
                    "A column is a GPU, full height its memory: blocks are models, darker with more rate/slo; the rest is left for the KV "
                    "cache. The bar beside it is the pressure; red is the worst, which is the objective. The dashed line is the bound.",
                    gpus_chart(results, workload.name, seed),
                )
            )
    return made


def score_chart(found: Mapping[str, float]) -> str:
    """Return bars of the scores, best first."""
    if not found:
        return document(WIDTH, 20, [text(0, 14, "every policy is void")], "no score")
    x = Scale(0, max(found.values()) * 1.05, LEFT, WIDTH - 60)
    parts = []
    for row, (name, score) in enumerate(found.items()):
        top = row * 22.0 + 4
        colour = "var(--soft)" if name == "optimum" else "var(--spot)"
        parts += [
            text(LEFT - 8, top + 13, name, anchor="end"),
            f'<rect x="{LEFT:.1f}" y="{top:.1f}" width="{x(score) - LEFT:.1f}" height="16" fill="{colour}"/>',
            text(x(score) + 6, top + 13, f"{score:.2f}"),
        ]
    height = len(found) * 22.0 + 8
    if "optimum" in found:
        parts.append(_dashed(x(found["optimum"]), 0, x(found["optimum"]), height))
    return document(WIDTH, height, parts, "score of every policy")


def gpus_chart(results: Results, workload: str, seed: int, policies: tuple[str, ...] = ()) -> str:
    """Return one panel per policy (all without names): its GPUs, their models and their pressure."""
    chosen = results.workloads[workload]
    assert isinstance(chosen, PlacementWorkload)
    instance = chosen.instance(seed)
    there = [trial for trial in results.of(workload) if trial.seed == seed and not trial.outcome.is_void]
    shown = [trial for trial in there if not policies or trial.policy in policies]
    shown.sort(key=lambda trial: trial.outcome.metrics["kvpr"])
    bound = shown[0].bound
    highest = max(float(trial.outcome.series["kvpr"].max()) for trial in shown if trial.outcome.metrics["kvpr"] < 1)
    parts, top = [], 0.0
    for trial in shown:
        panel = _panel(trial.policy, trial.outcome, instance, bound.value if bound else None, highest)
        parts.append(f'<g transform="translate(0 {top:.0f})">{"".join(panel)}</g>')
        top += BAR + 40
    return document(WIDTH, top, parts, f"GPUs under {', '.join(trial.policy for trial in shown)}")


def _telling_seed(results: Results, workload: str) -> int | None:
    """The seed at which the policies' ratios have the median spread, of those with no void trial."""
    metric, spread = results.study.objective, {}
    for seed in sorted({trial.seed for trial in results.of(workload)}):
        ratios = [trial.ratio(metric) for trial in results.of(workload) if trial.seed == seed and not trial.outcome.is_void]
        known = sorted(each for each in ratios if each is not None)
        if known:
            spread[seed] = known[len(known) // 2] - known[0]
    return sorted(spread, key=spread.__getitem__)[len(spread) // 2] if spread else None


def _panel(name: str, outcome: Outcome, instance: Instance, bound: float | None, highest: float) -> list[str]:
    kvpr = outcome.series["kvpr"]
    y = Scale(0, instance.gpu_memory_gb, 24 + BAR, 24)
    pressure = Scale(0, highest * 1.05, 24 + BAR, 24)
    most = max(model.demand for model in instance.models)
    step = (WIDTH - LEFT - 12) / instance.gpus
    worst = int(np.argmax(kvpr))
    value = outcome.metrics["kvpr"]
    parts = [
        text(LEFT, 14, name, css="strong"),
        text(WIDTH - 12, 14, f"kvpr {value:.4f}" + (f", {value / bound:.3f} of the bound" if bound else ""), anchor="end"),
        text(LEFT - 8, 30, f"{instance.gpu_memory_gb:g} GB", anchor="end"),
        line(LEFT, 24 + BAR, WIDTH - 12, 24 + BAR),
    ]
    for gpu in range(instance.gpus):
        left, level = LEFT + gpu * step + 4, 0.0
        parts.append(f'<rect x="{left:.1f}" y="24" width="{step * 0.6:.1f}" height="{BAR:.0f}" fill="none" stroke="var(--rule)"/>')
        for i in np.flatnonzero(outcome.series["gpu_of"] == gpu).tolist():
            model = instance.models[i]
            label = f"model {i}: {model.size_gb:g} GB, {model.request_rate:g} requests/s, SLO {model.slo:g} s"
            top = y(level + model.size_gb)
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{step * 0.6:.1f}" height="{y(level) - top - 1:.1f}" fill="var(--spot)" '
                f'fill-opacity="{0.2 + 0.8 * model.demand / most:.2f}"><title>{escape(label)}</title></rect>'
            )
            level += model.size_gb
        height = y.start - pressure(min(float(kvpr[gpu]), highest))
        parts.append(
            f'<rect x="{left + step * 0.63:.1f}" y="{y.start - height:.1f}" width="{step * 0.14:.1f}" height="{height:.1f}" '
            f'fill="var({"--dead" if gpu == worst else "--demand"})"><title>GPU {gpu}: kvpr {kvpr[gpu]:.4f}</title></rect>'
        )
    if bound is not None and bound <= highest:
        parts.append(_dashed(LEFT, pressure(bound), WIDTH - 12, pressure(bound)))
    return parts


def _dashed(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="var(--ink)" stroke-width="1" stroke-dasharray="4 3"/>'
