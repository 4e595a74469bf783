"""SLA, routing included, against dense attention by torch and beside its own sparse part, interleaved, on one thread: times faster.

2 heads of dimension 64, blocks of 64, 5 % critical and 10 % negligible. Processor time, median of 5 rounds after one that compiles.

Run: ``.venv/bin/python benchmarks/attention_sla.py`` (about a minute; ``--length 16384``). Bars for the forward pass at 8,192 tokens:
region="all" >= 5, region="complement" >= 4.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping

import torch
from torch.nn.functional import scaled_dot_product_attention

from attention import DIM, HEADS, medians, one_thread
from cloudchamber.attention import SparseAttention
from cloudchamber.attention.sla import SLASelector, sla
from cloudchamber.core.results import Table

SHARE = 0.05
REGIONS = ("all", "complement", "marginal")
BARS = {("all", "forward"): 5.0, ("complement", "forward"): 4.0}
Key = tuple[str, str]


def modules() -> dict[str, SparseAttention]:
    """Each region, and what the router and the kernel take without a branch."""
    made = {region: sla(DIM, k_h=SHARE, region=region) for region in REGIONS}
    return {**made, "sparse alone": SparseAttention(SLASelector(), density=SHARE)}


def subjects(tokens: int, what: str) -> dict[Key, Callable[[], object]]:
    q, k, v = (torch.randn(1, HEADS, tokens, DIM, requires_grad=what == "both") for _ in range(3))
    d_out = torch.randn(1, HEADS, tokens, DIM)

    def timed(attend: Callable[[], torch.Tensor]) -> Callable[[], object]:
        return (lambda: attend().backward(d_out)) if what == "both" else torch.no_grad()(attend)

    made = {("dense", what): timed(lambda: scaled_dot_product_attention(q, k, v))}
    for name, module in modules().items():
        made[name, what] = timed(lambda module=module: module(q, k, v).out)  # type: ignore[misc]
    return made


def rows(found: Mapping[Key, float], has_bars: bool) -> list[tuple[str, ...]]:
    """One line for each: time, times faster than dense, and whether its bar holds."""
    lines = []
    for (name, what), seconds in found.items():
        ratio = found["dense", what] / seconds
        bar = BARS.get((name, what)) if has_bars else None
        said = "" if bar is None else f">= {bar:g} {'holds' if ratio >= bar else 'MISSED'}"
        lines.append((what, name, f"{seconds * 1e3:,.1f}", f"{ratio:.2f}", said))
    return lines


def main() -> None:
    """Print both tables as one."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--length", type=int, default=8192, help="tokens (default: 8192, for which the bars are)")
    chosen = options.parse_args()
    one_thread()
    torch.manual_seed(0)
    lines = [line for what in ("forward", "both") for line in rows(medians(subjects(chosen.length, what)), chosen.length == 8192)]
    print(f"{chosen.length:,} tokens, {HEADS} heads of {DIM}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print(Table(("what", "region", "ms", "times faster", "bar"), tuple(lines)))


if __name__ == "__main__":
    main()
