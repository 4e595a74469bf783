"""Methods of sparse attention end to end against dense attention by torch, interleaved, on one thread: where time goes, and the bars.

Everything a method does is inside its figure: clustering, permutation there and back, selection, kernel and coarse branch. 8,192 tokens
of 24 semantic groups, a quarter of them scattered (2 heads of 64); the tensors of one step and the next take turns, so that clusters
start warm and still have to move. Radial masks also at 16,384 tokens. Processor time, median of 5 rounds after a first; a stage's part is
its share of the wall time of the calls.

Run: ``.venv/bin/python benchmarks/attention_methods.py`` (about three minutes; ``--lengths`` shows instead from which length on
clusters beat dense attention). Bars: clusters at a density of at most 0.25 >= 1.8, clustering <= 10 % of dense attention; radial >= 1.25
at 32 frames of 256 tokens and >= 1.9 at 64, its mask < 1 %; VSA at 87.5 % >= 3.5, and 2.2 with backward (gather), its selection and coarse
branch <= 20 % of the whole.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from attention import DIM, HEADS, Key, medians, one_thread
from cloudchamber.attention import Grid, PooledTopK, SlidingWindow, SparseAttention, TileLayout
from cloudchamber.attention.generators import clustered
from cloudchamber.attention.radial import Grid2DRadial, RadialSelector
from cloudchamber.attention.sparse import AttentionResult
from cloudchamber.attention.svg2 import CalibratedTopP, CentroidTopP, TopK, XAttentionLike, svg2
from cloudchamber.attention.vsa import vsa
from cloudchamber.core.results import Table

GRID, FILM, LONG = Grid(8, 32, 32), Grid(32, 16, 16), Grid(64, 16, 16)
WIDTH, DRIFT, SPARSITY = 128, 0.1, 0.875
STAGES = ("layout", "permute", "select", "kernel", "correct")
LENGTHS = (512, 1024, 2048, 4096, 8192)
Row = tuple[str, ...]


@dataclass
class Steps:
    """Two steps of sampling: the second's tokens have moved a little."""

    q: tuple[torch.Tensor, torch.Tensor]
    k: tuple[torch.Tensor, torch.Tensor]
    v: torch.Tensor
    grid: Grid

    @classmethod
    def of(cls, grid: Grid) -> Steps:
        """Semantic groups over a grid."""
        rng = np.random.default_rng(0)
        made = clustered(grid, HEADS, DIM, rng)
        q, k = (
            (torch.from_numpy(x)[None], torch.from_numpy(x + DRIFT * rng.standard_normal(x.shape, np.float32))[None])
            for x in (made.q, made.k)
        )
        return cls(q, k, torch.from_numpy(made.v)[None], grid)

    def dense(self) -> object:
        """Dense attention of the first step."""
        return scaled_dot_product_attention(self.q[0], self.k[0], self.v)


@dataclass
class Subject:
    """One method: each call is the next step, with what the last one left."""

    attention: SparseAttention
    steps: Steps
    x: torch.Tensor | None = None
    results: list[AttentionResult] = field(default_factory=list)

    def __call__(self) -> AttentionResult:
        """Attend."""
        at, carry = len(self.results) % 2, self.results[-1].carry if self.results else None
        with torch.no_grad():
            made = self.attention(self.steps.q[at], self.steps.k[at], self.steps.v, grid=self.steps.grid, x=self.x, carry=carry)
        self.results.append(made)
        return made

    def share(self, *stages: str) -> float:
        """Median share of the wall time, the first call left out."""
        return float(np.median([sum(getattr(each.seconds, stage) for stage in stages) / each.seconds.total for each in self.results[1:]]))

    def error(self) -> float:
        """Relative distance of the first step's output from dense attention's."""
        dense = self.steps.dense()
        return float((self.results[0].out - dense).norm() / dense.norm())  # type: ignore[operator, attr-defined]


def methods(steps: Steps) -> dict[str, Subject]:
    x, tiles = torch.randn(1, steps.grid.tokens, WIDTH), TileLayout()
    made = {
        "SlidingWindow": SparseAttention(SlidingWindow(), density=1 - SPARSITY),
        "PooledTopK": SparseAttention(PooledTopK(), density=1 - SPARSITY),
        "PooledTopK, tiles": SparseAttention(PooledTopK(), layout=tiles, density=1 - SPARSITY),
        "VSA": vsa(WIDTH, HEADS, DIM, sparsity=SPARSITY),
        "SVG2, CentroidTopP": svg2(policy=CentroidTopP()),
        "SVG2, CalibratedTopP": svg2(policy=CalibratedTopP()),
        "SVG2, XAttentionLike": svg2(policy=XAttentionLike()),
        "SVG2, TopK": svg2(policy=TopK(0.2)),
    }
    return {name: Subject(each, steps, x if name == "VSA" else None) for name, each in made.items()}


def radial(steps: Steps) -> dict[str, Subject]:
    made = {
        f"Radial, {steps.grid.frames} frames": SparseAttention(RadialSelector()),
        f"Radial 2-D tiles, {steps.grid.frames} frames": SparseAttention(Grid2DRadial(), layout=TileLayout()),
    }
    return {name: Subject(each, steps) for name, each in made.items()}


def timed(steps: Steps, subjects: Mapping[str, Subject]) -> dict[str, float]:
    """Processor seconds of each, and of dense attention."""
    runs: dict[Key, Callable[[], object]] = {("dense", 0.0, "forward"): steps.dense}
    found = medians(runs | {(name, 0.0, "forward"): each for name, each in subjects.items()})
    return {name: seconds for (name, _, _), seconds in found.items()}


def rows(found: Mapping[str, float], subjects: Mapping[str, Subject]) -> list[Row]:
    """One line for each method."""
    lines: list[Row] = [("dense", f"{found['dense'] * 1e3:,.1f}", "1.00", "1.000", "0", *("",) * len(STAGES))]
    for name, each in subjects.items():
        density = float(np.mean([result.density for result in each.results[1:]]))
        parts = [f"{each.share(stage):.0%}" if each.share(stage) else "" for stage in STAGES]
        ratio = found["dense"] / found[name]
        lines.append((name, f"{found[name] * 1e3:,.1f}", f"{ratio:.2f}", f"{density:.3f}", f"{each.error():.2g}", *parts))
    return lines


def both(steps: Steps) -> dict[str, float]:
    """Processor seconds of forward with backward: dense, and VSA on the kernel of plain torch."""
    q, k, v = (each.clone().requires_grad_() for each in (steps.q[0], steps.k[0], steps.v))
    x, d_out, attention = torch.randn(1, steps.grid.tokens, WIDTH), torch.randn_like(v), vsa(WIDTH, HEADS, DIM, sparsity=SPARSITY)
    attention.backend = "gather"
    runs: dict[Key, Callable[[], object]] = {
        ("dense", 0.0, "both"): lambda: scaled_dot_product_attention(q, k, v).backward(d_out),
        ("VSA", 0.0, "both"): lambda: attention(q, k, v, grid=steps.grid, x=x).out.backward(d_out),
    }
    return {name: seconds for (name, _, _), seconds in medians(runs).items()}


def bar(what: str, found: float, limit: float, *, at_most: bool = False) -> Row:
    holds = found <= limit if at_most else found >= limit
    shown = "{:.1%}" if at_most else "{:.2f}"
    return what, shown.format(found), f"{'<=' if at_most else '>='} {shown.format(limit)}", "holds" if holds else "MISSED"


def lengths() -> list[Row]:
    """Clusters against dense attention, length by length: where ``min_tokens`` of :func:`svg2` comes from."""
    lines = []
    for tokens in LENGTHS:
        steps = Steps.of(Grid(tokens // 64, 8, 8))
        subjects = {str(each): Subject(svg2(policy=each, min_tokens=0), steps) for each in (CalibratedTopP(), TopK(0.2))}
        found = timed(steps, subjects)
        lines += [(f"{tokens:,}", *row[:4]) for row in rows(found, subjects)[1:]]
    return lines


def main() -> None:
    """Print methods, then bars."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--lengths", action="store_true", help="from which length on clusters beat dense attention")
    chosen = options.parse_args()
    one_thread()
    torch.manual_seed(0)
    print(f"{HEADS} heads of {DIM}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    if chosen.lengths:
        print(Table(("tokens", "rule", "ms", "times faster", "density"), tuple(lengths())))
        return
    bars: list[Row] = []
    head = ("method", "ms", "times faster", "density", "error", *STAGES)
    steps = Steps.of(GRID)
    subjects = methods(steps)
    found = timed(steps, subjects)
    print(Table(head, tuple(rows(found, subjects))))
    name = "SVG2, TopK"
    bars.append(bar("clusters, density at most 0.25", subjects[name].results[-1].density, 0.25, at_most=True))
    bars.append(bar("clusters, times faster", found["dense"] / found[name], 1.8))
    bars.append(bar("clustering, of dense attention", subjects[name].share("layout") * found[name] / found["dense"], 0.1, at_most=True))
    bars.append(bar("VSA, times faster", found["dense"] / found["VSA"], 3.5))
    bars.append(bar("VSA, selection and coarse branch", subjects["VSA"].share("select", "correct"), 0.2, at_most=True))
    for grid, limit in ((FILM, 1.25), (LONG, 1.9)):
        steps = Steps.of(grid)
        subjects = radial(steps)
        found = timed(steps, subjects)
        print(Table(head, tuple(rows(found, subjects))))
        name = f"Radial, {grid.frames} frames"
        bars.append(bar(f"{name}, times faster", found["dense"] / found[name], limit))
        bars.append(bar(f"{name}, mask", subjects[name].share("select"), 0.01, at_most=True))
    trained = both(Steps.of(GRID))
    bars.append(bar("VSA with backward, times faster", trained["dense"] / trained["VSA"], 2.2))
    print(Table(("what", "ours", "bar", ""), tuple(bars)))


if __name__ == "__main__":
    main()
