"""Train and tune a small video model with each sparse attention, and sample from it: what the papers claim, at the size of a laptop.

Parts, each of many runs; a run's result is a line of ``reports/attention_training.jsonl`` at once, and a run that is there is not made
again, so that the whole can be stopped at any time and called again. Compared is the squared error of the velocity on 64 clips that no
training sees, the same clips, noise and times for all, 3 seeds; intervals are of 95 %, by Student's t over the seeds.

========== ===================================================================================================================
``vsa``    from scratch, equal steps and equal operations: dense, VSA, and VSA without its coarse output
``sla``    the trained model tuned towards its dense self with a small share of tiles: sparse only, SLA, VSA, the oracle's tiles
``radial`` the trained model extended to more frames by LoRA: dense and radial
``sample`` clips of the trained model with each method, against the dense clip from the same noise, over densities
``rank``   stable rank of the attention that is kept and of the rest
========== ===================================================================================================================

Run: ``.venv/bin/python benchmarks/attention_training.py vsa`` (about an hour on one processor each for ``vsa`` and ``sla``; the trained
model is made first, in half an hour, and stays in the cache; ``--seeds 1`` for a look). ``--show`` prints what is there.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cloudchamber.attention import (
    OracleTopK,
    PooledTopK,
    RandomBlocks,
    Raster,
    Schedule,
    SlidingWindow,
    SparseAttention,
    SpatialTemporal,
    TileLayout,
    convert,
)
from cloudchamber.attention.radial import RadialSelector
from cloudchamber.attention.sla import sla
from cloudchamber.attention.svg2 import CentroidTopP, svg2
from cloudchamber.attention.tiny import (
    DiTConfig,
    MovingShapes,
    Recipe,
    TinyVideoDiT,
    Tuning,
    batch_of,
    extend,
    gradient_error,
    psnr,
    recorded,
    sample,
    split_ranks,
    ssim,
    train,
    tune,
    unscaled,
    validation_loss,
)
from cloudchamber.attention.vsa import CoarseTopK, TileSelector, vsa
from cloudchamber.core.results import Table

STORE = Path("reports/attention_training.jsonl")
CLIP = MovingShapes(8, 32)
TOKENS = 2048
SEEDS = 3
Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One training: what its result is filed under, and what makes it."""

    part: str
    method: str
    seed: int
    make: Callable[[], Result]

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is filed under."""
        return self.part, self.method, self.seed


def stored() -> dict[tuple[str, str, int], Result]:
    """What was run before; a line that was cut off by a crash is left out."""
    found: dict[tuple[str, str, int], Result] = {}
    for line in STORE.read_text().splitlines() if STORE.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.get("settings") == settings(row["part"]):
            found[row["part"], row["method"], row["seed"]] = row
    return found


def settings(part: str) -> str:
    """What results of a part depend on; those of other settings are not used."""
    return hashlib.sha256(repr((SETTINGS[part], Recipe().hash)).encode()).hexdigest()[:12]


def execute(runs: Iterator[Run]) -> None:
    """Make those that are not there, and file each."""
    for run in runs:
        if run.key in stored():
            continue
        start = time.process_time()
        result = {"part": run.part, "method": run.method, "seed": run.seed, "settings": settings(run.part), **run.make()}
        result["cpu_s"] = round(time.process_time() - start, 1)
        STORE.parent.mkdir(exist_ok=True)
        is_cut = STORE.is_file() and not STORE.read_bytes().endswith(b"\n")
        with STORE.open("a") as file:
            file.write("\n" * is_cut + json.dumps(result) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(run.part, run.method, run.seed, {k: v for k, v in result.items() if isinstance(v, float)}, flush=True)


def judged(model: TinyVideoDiT, shapes: MovingShapes = CLIP) -> Result:
    """The validation loss, and of each clip for paired comparisons."""
    losses = validation_loss(model, shapes)
    return {"loss": float(losses.mean()), "losses": [round(float(each), 6) for each in losses]}


# --- VSA from scratch

STEPS, KEEP = 200, 8
FROM_SCRATCH = Tuning(steps=STEPS, batch=4, objective="velocity", lr=4e-3, correction_rate=1.0)


def scratch(method: str, seed: int, steps: int) -> Result:
    """Train a fresh model with 8 of 32 tiles, or all."""
    torch.manual_seed(seed)
    model = TinyVideoDiT()
    config = model.config
    if method.startswith("vsa"):
        torch.manual_seed(seed + 1000)

        def made() -> SparseAttention:
            if method == "vsa-router-only":
                return SparseAttention(TileSelector(CoarseTopK()), layout=TileLayout(), density=KEEP / 32)
            return vsa(config.width, config.heads, config.head_dim, sparsity=1 - KEEP / 32, init="normal")

        convert(model, made, "blocks.*.attn")
    tune(model, CLIP, replace(FROM_SCRATCH, steps=steps, seed=seed))
    return judged(model) | {"steps": steps}


def vsa_runs(seeds: int) -> Iterator[Run]:
    model = TinyVideoDiT()
    coarse = model.config.layers * (4.0 * 32 * 32 * model.config.width + 2.0 * TOKENS * model.config.width**2)
    share = (model.flops(TOKENS, KEEP / 32) + coarse) / model.flops(TOKENS)
    fewer = round(STEPS * share)
    methods = {"vsa": STEPS, "dense": STEPS, "dense, equal operations": fewer}
    for seed in range(seeds):
        for method, steps in methods.items():
            yield Run("vsa", method, seed, lambda m=method, n=seed, k=steps: scratch(m, n, k))  # type: ignore[misc]
    for seed in range(seeds):
        yield Run("vsa", "vsa-router-only", seed, lambda n=seed: scratch("vsa-router-only", n, STEPS))  # type: ignore[misc]


# --- the trained model, tuned with few tiles

TILES = 1
TUNED = Tuning(steps=1000, batch=1)
TUNED_METHODS = ("sparse only", "SLA, all", "sparse only, 2 tiles", "SLA, marginal", "SLA, complement", "VSA", "sparse only, oracle")


class Remembered:
    """A teacher that is asked once about each batch, for all the methods that are tuned on it."""

    def __init__(self, teacher: TinyVideoDiT) -> None:
        self.teacher = teacher
        self.said: dict[bytes, Tensor] = {}

    def __call__(self, clips: Tensor, t: Tensor) -> Tensor:
        """Return the velocity."""
        key = clips.numpy().tobytes()[:4096]  # of noise, which no two batches share
        if key not in self.said:
            self.said[key] = self.teacher(clips, t)
        return self.said[key]


def few_tiles(method: str, config: DiTConfig, tiles: int) -> Callable[[], SparseAttention]:
    """What takes the place of dense attention."""
    density = tiles / 32
    if method == "VSA":
        return lambda: vsa(config.width, config.heads, config.head_dim, sparsity=1 - density)
    if method.startswith("SLA"):
        region: Any = method.removeprefix("SLA, ")
        return lambda: sla(config.head_dim, k_h=density, k_l=0.1 if region == "marginal" else 0.0, region=region, layout=TileLayout())
    selector: Any = OracleTopK() if "oracle" in method else TileSelector(CoarseTopK())
    return lambda: SparseAttention(selector, layout=TileLayout(), density=density)


def tuned(method: str, tiles: int, seed: int, teacher: Remembered, steps: int) -> Result:
    """Tune a copy of the trained model; ``steps`` 0 shows it as it is."""
    torch.manual_seed(seed)
    model = copy.deepcopy(teacher.teacher)
    converted = convert(model, few_tiles(method, model.config, tiles), "blocks.*.attn")
    before = judged(model)["loss"]
    if steps:
        tune(model, CLIP, replace(TUNED, steps=steps, seed=seed), teacher=teacher)
    batch = batch_of(CLIP, 16, 3)
    with torch.no_grad():
        apart = float((model(batch.mixed, batch.t) - teacher.teacher(batch.mixed, batch.t)).square().mean())
    flops = sum(each.last.flops for each in converted if each.last is not None) / 16
    return judged(model) | {"before": before, "apart": apart, "tiles": tiles, "steps": steps, "flops": flops}


def sla_runs(seeds: int) -> Iterator[Run]:
    base = train(progress=print)
    yield Run("sla", "dense", 0, lambda: judged(base))
    for tiles in (16, 8, 4, 2, 1):
        yield Run("sla", f"untuned, {tiles} tiles", 0, lambda tiles=tiles: tuned("sparse only", tiles, 0, Remembered(base), 0))  # type: ignore[misc]
    teachers = [Remembered(base) for _ in range(seeds)]
    for methods in (TUNED_METHODS[:2], TUNED_METHODS[2:]):  # those that decide first
        for seed, teacher in enumerate(teachers):
            for method in methods:
                tiles = 2 if method.endswith("2 tiles") else TILES  # what the operations of SLA's and VSA's branches would buy instead
                yield Run("sla", method, seed, lambda m=method, k=tiles, s=seed, t=teacher: tuned(m, k, s, t, TUNED.steps))  # type: ignore[misc]


# --- longer clips

LONG, LONG_STEPS = MovingShapes(32, 32), 20
LORA = Tuning(steps=LONG_STEPS, batch=1, objective="velocity", lr=1e-3)


def extended(method: str, seed: int, base: TinyVideoDiT) -> Result:
    """Train the LoRA of a model for four times the frames."""
    torch.manual_seed(seed)
    model = extend(base, CLIP.frames, rank=16)
    if method == "radial":
        convert(model, lambda: SparseAttention(RadialSelector()), "blocks.*.attn")
    start = time.process_time()
    tune(model, LONG, replace(LORA, seed=seed), progress=print)
    seconds = time.process_time() - start
    losses = validation_loss(model, LONG, 16, 1)
    return {"loss": float(losses.mean()), "losses": losses.round(6).tolist(), "tuning_s": seconds}


def untrained(base: TinyVideoDiT, frames: int, positions: Any) -> Result:
    """A model that is only told how to count frames it has not seen."""
    losses = validation_loss(extend(base, CLIP.frames, rank=1, positions=positions), MovingShapes(frames, 32), 16, 1)
    return {"loss": float(losses.mean()), "losses": losses.round(6).tolist()}


def radial_runs(seeds: int) -> Iterator[Run]:
    base = train(progress=print)
    for frames in (16, 32):
        for positions in ("extrapolate", "interpolate", "ntk"):
            yield Run("radial", f"untrained, {frames} frames, {positions}", 0, lambda f=frames, p=positions: untrained(base, f, p))  # type: ignore[misc]
    for seed in range(seeds):
        for method in ("radial", "dense"):
            yield Run("radial", method, seed, lambda m=method, s=seed: extended(m, s, base))  # type: ignore[misc]


# --- every method on the trained model, over densities

SAMPLING_STEPS, CLIPS, DENSE_STEPS = 20, 2, 0.2
Maker = Callable[[float], SparseAttention]
BY_DENSITY = (0.0625, 0.125, 0.25, 0.5)
BY_SHARE = (0.5, 0.7, 0.85, 0.95)
METHODS: dict[str, tuple[tuple[float, ...], Maker]] = {
    "SVG2 clusters": (BY_SHARE, lambda p: svg2(p, policy=CentroidTopP(), min_tokens=0)),
    "SVG2 clusters, calibrated": (BY_SHARE, lambda p: svg2(p, min_tokens=0)),
    "raster, top-p": (BY_SHARE, lambda p: svg2(p, layout=Raster(), policy=CentroidTopP(), min_tokens=0)),
    "tiles, top-p": (BY_SHARE, lambda p: svg2(p, layout=TileLayout(), policy=CentroidTopP(), min_tokens=0)),
    "raster, pooled": (BY_DENSITY, lambda d: SparseAttention(PooledTopK(), density=d)),
    "tiles, VSA's router": (BY_DENSITY, lambda d: SparseAttention(TileSelector(CoarseTopK()), layout=TileLayout(), density=d)),
    "window": (BY_DENSITY, lambda d: SparseAttention(SlidingWindow(), density=d)),
    "spatial or temporal": (BY_DENSITY, lambda d: SparseAttention(SpatialTemporal(), density=d)),
    "radial": ((0.2, 1.0), lambda gamma: SparseAttention(RadialSelector(gamma=gamma))),
    "random": (BY_DENSITY, lambda d: SparseAttention(RandomBlocks(), density=d)),
    "tiles, oracle": (BY_DENSITY, lambda d: SparseAttention(OracleTopK(), layout=TileLayout(), density=d)),
}


def sampled(base: TinyVideoDiT, maker: Callable[[], SparseAttention], seed: int, dense: Tensor, noise: Tensor) -> Result:
    """Draw the clips of a seed's noise, and compare them with the dense ones; density is of the whole run, dense steps included."""
    model = copy.deepcopy(base)
    converted = convert(model, maker, "blocks.*.attn")
    densities: list[float] = []
    for each in converted:
        each.attention.schedule = Schedule(dense_steps=DENSE_STEPS)
        each.attention.register_forward_hook(lambda _module, _args, result: densities.append(result.density))
    given, wanted = (unscaled(each.numpy()) for each in (sample(model, noise, SAMPLING_STEPS, converted), dense))
    found = {"psnr": psnr(given, wanted), "ssim": ssim(given, wanted), "edges": gradient_error(given, wanted)}
    return found | {"density": float(np.mean(densities))}


def fitted(base: TinyVideoDiT, maker: Callable[[], SparseAttention]) -> Result:
    """Validation loss without any tuning, and the density it took."""
    model = copy.deepcopy(base)
    densities: list[float] = []
    converted = convert(model, maker, "blocks.*.attn")
    model.register_forward_pre_hook(lambda *_: [each.forget() for each in converted] and None)  # each batch is of other clips
    for each in converted:
        each.attention.register_forward_hook(lambda _module, _args, result: densities.append(result.density))
    return judged(model) | {"density": float(np.mean(densities))}


def sample_runs(seeds: int) -> Iterator[Run]:
    base = train(progress=print)
    for name, (knobs, make) in METHODS.items():
        for knob in knobs:
            yield Run("curves", f"{name} @ {knob}", 0, lambda m=make, k=knob: fitted(base, lambda: m(k)))  # type: ignore[misc]
    for seed in range(seeds):
        noise = batch_of(CLIP, CLIPS, 7, seed).noise
        dense = sample(base, noise, SAMPLING_STEPS)
        for name, (knobs, make) in METHODS.items():
            for knob in knobs:
                yield Run(
                    "sample",
                    f"{name} @ {knob}",
                    seed,
                    lambda m=make, k=knob, s=seed, d=dense, n=noise: sampled(base, lambda: m(k), s, d, n),  # type: ignore[misc]
                )


# --- ranks


def ranked(base: TinyVideoDiT) -> Result:
    """Stable rank of the largest 8 % of each row and of the rest, by layer and head, over clips at four times."""
    batch = batch_of(CLIP, 4, 9)
    found = [split_ranks(tensors) for tensors in recorded(base, batch.mixed, torch.tensor([0.2, 0.4, 0.6, 0.8]))]
    kept, rest = np.array([each[0] for each in found]), np.array([each[1] for each in found])
    return {"kept": kept.round(3).tolist(), "rest": rest.round(3).tolist(), "lower": float((rest < kept).mean())}


def rank_runs(seeds: int) -> Iterator[Run]:
    base = train(progress=print)
    yield Run("rank", "dense", 0, lambda: ranked(base))


PARTS: dict[str, Callable[[int], Iterator[Run]]] = {
    "vsa": vsa_runs,
    "sla": sla_runs,
    "radial": radial_runs,
    "sample": sample_runs,
    "rank": rank_runs,
}


# --- what came of it


def interval(values: Sequence[float], digits: int = 3) -> str:
    """Mean, and its interval of 95 % over the seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.{digits}f} (one seed)"
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return f"{mean:.{digits}f} [{mean - half:.{digits}f}, {mean + half:.{digits}f}]"


def by_method(part: str, field: str = "loss") -> dict[str, dict[int, float]]:
    """For each method, a field of each seed."""
    found: dict[str, dict[int, float]] = {}
    for (of, method, seed), row in stored().items():
        if of == part and field in row:
            found.setdefault(method, {})[seed] = row[field]
    return found


def ratio(above: dict[int, float], below: dict[int, float]) -> str:
    """Of seeds that both have."""
    seeds = sorted(set(above) & set(below))
    return interval([above[seed] / below[seed] for seed in seeds]) if seeds else "-"


def paired(part: str, above: str, below: str, field: str = "losses") -> str:
    """Difference of two methods over the same clips, with its standard error over clips, by seed."""
    rows, said = stored(), []
    for seed in sorted(seed for of, method, seed in rows if (of, method) == (part, above) and (part, below, seed) in rows):
        apart = np.array(rows[part, above, seed][field]) - np.array(rows[part, below, seed][field])
        said.append(f"{apart.mean():+.4f} ± {apart.std(ddof=1) / np.sqrt(len(apart)):.4f}")
    return "; ".join(said)


def show_vsa() -> Iterator[tuple[str, str]]:
    """Losses of models from scratch, and VSA's over the others'."""
    found = by_method("vsa")
    yield from ((f"loss, {name}", interval(list(each.values()))) for name, each in found.items())
    for said, above, below in (
        ("VSA / dense at equal steps (<= 1.03)", "vsa", "dense"),
        ("VSA / dense at equal operations (<= 1)", "vsa", "dense, equal operations"),
        ("router only / VSA (> 1)", "vsa-router-only", "vsa"),
    ):
        yield said, f"{ratio(found.get(above, {}), found.get(below, {}))}; over clips, by seed: {paired('vsa', above, below)}"


def show_sla() -> Iterator[tuple[str, str]]:
    """Excess over the dense model's loss and distance from its predictions, by method."""
    found, rows = by_method("sla"), stored()
    apart = by_method("sla", "apart")
    if ("sla", "dense", 0) not in rows:
        return
    base = rows["sla", "dense", 0]["loss"]
    yield "loss, dense", f"{base:.4f}"
    for name, each in found.items():
        excess = {seed: loss - base for seed, loss in each.items()}
        only = {seed: loss - base for seed, loss in found.get("sparse only", {}).items()}
        if name.startswith("untuned"):
            yield f"excess, {name}", f"{excess[0]:.4f}"
        elif name != "dense":
            cost = next(row.get("flops", 0) for (part, method, _), row in rows.items() if (part, method) == ("sla", name)) / 1e6
            yield (
                f"excess, {name}",
                f"{interval(list(excess.values()), 4)}; over sparse only {ratio(excess, only)}; {cost:.0f} MFLOP a clip",
            )
            yield f"distance from the dense model, {name}", f"over sparse only {ratio(apart[name], apart.get('sparse only', {}))}"
            if name != "sparse only":
                yield f"{name} - sparse only, over clips, by seed", paired("sla", name, "sparse only")


def show_radial() -> Iterator[tuple[str, str]]:
    """Losses at 32 frames, and radial's over dense's."""
    found = by_method("radial")
    yield from ((f"loss, {name}", interval(list(each.values()), 4)) for name, each in found.items())
    yield "radial / dense, loss (<= 1.05)", ratio(found.get("radial", {}), found.get("dense", {}))
    times = {name: {seed: stored()["radial", name, seed]["tuning_s"] for seed in found.get(name, {})} for name in ("radial", "dense")}
    yield "radial / dense, seconds of tuning (<= 0.75)", ratio(times["radial"], times["dense"])


def curve(name: str, part: str, seed: int, field: str) -> tuple[np.ndarray, np.ndarray]:
    """A method's densities, rising, and a field at each."""
    rows = [row for (of, method, s), row in stored().items() if of == part and s == seed and method.split(" @ ")[0] == name]
    rows.sort(key=lambda row: float(row["density"]))
    return np.array([row["density"] for row in rows]), np.array([row[field] for row in rows])


def show_sample() -> Iterator[tuple[str, str]]:
    """Likeness to the dense clips, and how much better clusters are than runs of neighbours at equal density."""
    seeds = sorted({seed for part, _, seed in stored() if part == "sample"})
    for method in dict.fromkeys(method for part, method, _ in stored() if part == "sample"):
        values = [stored()["sample", method, seed] for seed in seeds if ("sample", method, seed) in stored()]
        means = {field: float(np.mean([each[field] for each in values])) for field in ("density", "psnr", "ssim", "edges")}
        yield method, f"density {means['density']:.3f}: {means['psnr']:.2f} dB, SSIM {means['ssim']:.4f}, edges {means['edges']:.4f}"
    for rival in ("raster, top-p", "raster, pooled", "tiles, top-p"):
        for seed in seeds:
            at, db = curve("SVG2 clusters", "sample", seed, "psnr")
            other = curve(rival, "sample", seed, "psnr")
            if not len(at) or not len(other[0]):
                continue
            within = (at >= other[0][0]) & (at <= other[0][-1])
            lead = db[within] - np.interp(at[within], *other)
            yield (
                f"SVG2 over {rival}, seed {seed} (>= 1 dB)",
                ", ".join(f"{d:.2f}: {x:+.2f} dB" for d, x in zip(at[within], lead, strict=True)),
            )


def show_rank() -> Iterator[tuple[str, str]]:
    """Stable ranks, by layer and head."""
    row = stored().get(("rank", "dense", 0))
    if row is None:
        return
    yield "heads, of all layers and clips, whose rest has the lower rank (>= 0.8)", f"{row['lower']:.3f}"
    for name in ("kept", "rest"):
        yield f"median stable rank, {name}", f"{np.median(row[name]):.2f}"


SETTINGS: dict[str, object] = {
    "vsa": (FROM_SCRATCH, KEEP),
    "sla": (TUNED, TILES),
    "radial": (LORA, LONG),
    "sample": (SAMPLING_STEPS, CLIPS, DENSE_STEPS),
    "curves": (),
    "rank": (),
}
SHOWN: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "vsa": show_vsa,
    "sla": show_sla,
    "radial": show_radial,
    "sample": show_sample,
    "rank": show_rank,
}


def main() -> None:
    """Make a part's runs, and print what came of them."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("part", choices=sorted(PARTS))
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--show", action="store_true", help="print what is there, and run nothing")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    if not chosen.show:
        execute(PARTS[chosen.part](chosen.seeds))
    print(Table(("what", "figure"), tuple(SHOWN[chosen.part]())))


if __name__ == "__main__":
    main()
