"""Draw the pictures of README and documentation, each from a real run on the public data.

Run it with that data at hand: ``.venv/bin/python scripts/figures.py [NAME]...``; without names, all of them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from cloudchamber import study
from cloudchamber.core.registry import load_study
from cloudchamber.core.results import Results

IMAGES = Path(__file__).parents[1] / "docs" / "img"
COLOURS = {
    "c0": "#222b36",
    "c1": "#0b7fab",
    "c2": "#d9622b",
    "c3": "#2f8f4e",
    "c4": "#6b4fbb",
    "c5": "#b3202c",
    "c6": "#a8821a",
    "c7": "#8a94a3",
    "ink": "#1c2430",
    "soft": "#5b6675",
    "rule": "#d9dee5",
    "spot": "#0b7fab",
    "demand": "#d9622b",
    "up": "#d7e3ea",
    "dead": "#b3202c",
    "slack": "#6b4fbb",
    "paper, #fff": "#fff",
}
STYLE = "text{fill:#5b6675;font:12px system-ui,sans-serif}.strong{fill:#1c2430;font-weight:600}.grid{stroke:#d9dee5;stroke-width:1}"


def spot_timeline() -> str:
    """One start of the hardest trace: the upper quartile of what SkyNomad saves, not the most flattering."""
    from cloudchamber.spot.figures import timeline

    name = "h100-gang16-tp1.1"
    results = study("spot", ["SkyNomad", "UniformProgressSwitch"], [name], n_jobs=-1)
    costs = {policy: {trial.seed: trial.outcome.metrics["cost_usd"] for trial in results.of(name, policy)} for policy in results.policies}
    saved = {seed: costs["UniformProgressSwitch"][seed] - costs["SkyNomad"][seed] for seed in costs["SkyNomad"]}
    return timeline(results, name, sorted(saved, key=saved.__getitem__)[9])


def broadcast_trees() -> str:
    """The median of the published jobs."""
    from cloudchamber.broadcast.figures import trees_chart

    results = study("broadcast", ["DijkstraPaths", "TakahashiMatsuyama", "TreeSearch"], ["cloudcast"])
    return trees_chart(results, "cloudcast", _seed_at(results, "cloudcast", "DijkstraPaths", 1 / 2))


def placement_gpus() -> str:
    """The upper quartile of what the greedy policy loses on the published instances."""
    from cloudchamber.placement.figures import gpus_chart

    results = study("placement", ["PrismGreedy", "GreedyMixed", "ExactPacking"], ["prism"])
    return gpus_chart(results, "prism", _seed_at(results, "prism", "PrismGreedy", 3 / 4))


def moe_balance_loads() -> str:
    """What 32 GPUs carried under four policies; without the pointer's hints, which a picture in a page does not show."""
    from cloudchamber.moe.balance.figures import load_map

    policies = ("Static", "GreedyEPLB", "GreedyEPLB-global", "Incremental")
    results = study("moe.balance", list(policies), ["v3-58x256"], seeds=1)
    return re.sub(r"<title>.*?</title>", "", load_map(results, "v3-58x256", 0, policies))


def transactions_timeline() -> str:
    """The public batch w1 in order of arrival, and as local search orders it with a large budget."""
    from cloudchamber.transactions.figures import timeline

    subject = load_study("transactions")
    workload = subject.adjusted(subject.workloads()["w1"], budget=20_000_000)
    results = study("transactions", ["FIFO", "LocalSearch"], [workload], seeds=1)
    return timeline(results.workloads["w1"].world(0), {trial.policy: trial.outcome for trial in results.trials})


def engine_requests() -> str:
    """A slice of the code trace at the upper quartile of what the order of arrival loses to the bound."""
    from cloudchamber.engine.figures import timeline

    results = study("engine", ["FCFS", "ShortestPrompt"], ["azure-code"])
    seed = _seed_at(results, "azure-code", "FCFS", 3 / 4)
    svg = timeline([(trial.policy, trial.outcome) for trial in results.of("azure-code") if trial.seed == seed])
    return re.sub(r"<title>.*?</title>", "", svg)


def prefillonly_lam() -> str:
    """The curve over lam on the paper's workload, three seeds."""
    from cloudchamber.engine.prefillonly.figures import curve, lam_curve

    workload: Any = load_study("engine.prefillonly").workloads()["post"]
    return re.sub(r"<title>.*?</title>", "", curve(lam_curve(workload)))


def attention_maps() -> str:
    """The first head of the first seed, as generated."""
    from cloudchamber.attention.figures import sheet

    names = ["PooledTopK", "SpatialTemporal", "SlidingWindow", "RandomBlocks"]
    trials = study("attention", names, ["decay"], seeds=1).of("decay")
    masks = {trial.policy: trial.outcome.series["mask"][0] for trial in trials}
    return sheet(trials[0].outcome.series["mass"][0], masks)


def attention_radial_bands() -> str:
    """Every rule on the smaller shape."""
    from cloudchamber.attention.radial.figures import chart

    results = study("attention.radial", None, ["decay-32x64"], seeds=1)
    return chart({trial.policy: trial.outcome.series["width"] for trial in results.of("decay-32x64")})


def attention_svg2_recall() -> str:
    """Every rule on clusters by k-means, all seeds."""
    from cloudchamber.attention.svg2.figures import chart, points

    results = study("attention.svg2", None, ["kmeans"])
    return chart(points(results, "kmeans"), 0.9)


def attention_vsa_tiles() -> str:
    """Every selector on the first head of what crosses scenes."""
    from cloudchamber.attention.figures import sheet

    trials = study("attention.vsa", None, ["cross-scene"], seeds=1).of("cross-scene")
    return sheet(trials[0].outcome.series["mass"][0], {trial.policy: trial.outcome.series["mask"][0] for trial in trials})


def attention_sla_routes() -> str:
    """Every router on the first head of scattered groups."""
    from cloudchamber.attention.sla.figures import sheet

    trials = study("attention.sla", None, ["clustered"], seeds=1).of("clustered")
    return sheet(trials[0].outcome.series["mass"][0], {trial.policy: trial.outcome.series["labels"][0] for trial in trials})


def attention_verified_budgets() -> str:
    """Every budget on every population."""
    from cloudchamber.attention.verified.study import VerifiedStudy

    subject = VerifiedStudy()
    (figure,) = subject.figures(study(subject, n_jobs=-1))
    return figure.svg


def attention_training_frames() -> str:
    """One clip of the trained model from the same noise, dense and with what reads less; the first three of each run's steps dense."""
    import torch

    from cloudchamber.attention import PooledTopK, Raster, Schedule, SlidingWindow, SparseAttention, TileLayout, convert
    from cloudchamber.attention.svg2 import svg2
    from cloudchamber.attention.tiny import MovingShapes, batch_of, psnr, sample, train, unscaled
    from cloudchamber.attention.tiny.figures import filmstrips
    from cloudchamber.attention.vsa import CoarseTopK, TileSelector

    def tiles() -> SparseAttention:
        return SparseAttention(TileSelector(CoarseTopK()), layout=TileLayout(), density=0.125)

    makers = {
        "clusters": lambda: svg2(0.5, min_tokens=0),
        "tiles by their means": tiles,
        "runs by their means": lambda: SparseAttention(PooledTopK(), layout=Raster(), density=0.125),
        "window": lambda: SparseAttention(SlidingWindow(), density=0.125),
    }
    torch.set_num_threads(1)
    noise = batch_of(MovingShapes(8, 32), 2, 7, 0).noise[:1]
    dense = unscaled(sample(train(), noise, 20).numpy())
    shown = {"dense": dense[0]}
    for name, make in makers.items():
        model, densities = train(), []
        converted = convert(model, make, "blocks.*.attn")
        for each in converted:
            each.attention.schedule = Schedule(dense_steps=0.2)
            each.attention.register_forward_hook(lambda _module, _args, result, seen=densities: seen.append(result.density))
        clip = unscaled(sample(model, noise, 20, converted).numpy())
        shown[f"{name}: {sum(densities[12:]) / len(densities[12:]):.2f}, {psnr(clip, dense):.1f} dB"] = clip[0]
    return filmstrips(shown)


def attention_training_curves() -> str:
    """Likeness to the dense clip over density, from the results of the benchmark, averaged over its seeds."""
    import json

    import numpy as np

    from cloudchamber.attention.tiny.figures import curves

    rows = [json.loads(line) for line in (IMAGES.parents[1] / "reports" / "attention_training.jsonl").read_text().splitlines()]
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["part"] == "sample":
            name, _, knob = row["method"].partition(" @ ")
            found.setdefault(name, {}).setdefault(knob, []).append((row["density"], row["psnr"]))
    means = {name: sorted(tuple(np.mean(each, axis=0)) for each in knobs.values()) for name, knobs in found.items()}
    return curves({name: (np.array(each)[:, 0], np.array(each)[:, 1]) for name, each in means.items()}, "PSNR, dB")


def _seed_at(results: Results, workload: str, policy: str, share: float) -> int:
    """The seed at a quantile of a policy's ratio."""
    ratios = {trial.seed: trial.ratio(results.study.objective) or 0.0 for trial in results.of(workload, policy)}
    return sorted(ratios, key=ratios.__getitem__)[int(len(ratios) * share)]


def standalone(svg: str) -> str:
    """A report's SVG as a file of its own: colours and style in it, on white."""
    for name, colour in COLOURS.items():
        svg = svg.replace(f"var(--{name})", colour)
    assert "var(" not in svg, re.findall(r"var\([^)]*\)", svg)
    head = svg.index(">")
    return (
        f'{svg[:head]} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{svg[head + 1 :]}\n"
    )


PICTURES = {
    "spot-timeline": spot_timeline,
    "broadcast-trees": broadcast_trees,
    "placement-gpus": placement_gpus,
    "moe-balance-loads": moe_balance_loads,
    "transactions-timeline": transactions_timeline,
    "attention-maps": attention_maps,
    "attention-radial-bands": attention_radial_bands,
    "attention-svg2-recall": attention_svg2_recall,
    "attention-vsa-tiles": attention_vsa_tiles,
    "attention-sla-routes": attention_sla_routes,
    "attention-training-frames": attention_training_frames,
    "attention-training-curves": attention_training_curves,
    "engine-requests": engine_requests,
    "prefillonly-lam": prefillonly_lam,
    "attention-verified-budgets": attention_verified_budgets,
}


def main() -> None:
    """Write the pictures that are named."""
    for name in sys.argv[1:] or PICTURES:
        target = IMAGES / f"{name}.svg"
        target.write_text(standalone(PICTURES[name]()))
        print(target.relative_to(IMAGES.parents[1]))


if __name__ == "__main__":
    main()
