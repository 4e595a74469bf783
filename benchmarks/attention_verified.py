"""One verified decode step over a long context beside dense attention: time of everything that it takes.

Eight heads with keys of their own, head dimension 128, one thread. Logits are normal with a few runs of keys that stand out; values have a
mean. Scoring by pages, pilot, budget, sample and attention are all timed; page bounds are kept from step to step and are not, but reading
them is, and counts as bytes. Dense is torch's scaled_dot_product_attention. Medians of interleaved runs.

Run: ``.venv/bin/python benchmarks/attention_verified.py [--keys N] [--repeats N]``.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from statistics import median

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from cloudchamber.attention.verified import BudgetSpec, QuestPages, VAttention
from cloudchamber.attention.verified.decode import Cache, Decoded
from cloudchamber.core.results import Table

HEADS, DIM = 8, 128
BAR, DENSITY = 2.0, 0.10


def tensors(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values; the queries prefer 8 runs of 3 keys."""
    q = rng.standard_normal((HEADS, DIM)).astype(np.float32)
    keys = rng.standard_normal((HEADS, n, DIM)).astype(np.float32)
    for h in range(HEADS):
        starts = rng.choice(n // 16, 8, replace=False) * 16
        for at in (starts[:, None] + np.arange(3)).ravel():
            keys[h, at] += 4 * q[h] / np.sqrt(DIM)
    values = (rng.standard_normal((HEADS, n, DIM)) + 0.5 * rng.standard_normal((HEADS, 1, DIM))).astype(np.float32)
    return q, keys, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=65536)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    q, keys, values = tensors(options.keys, np.random.default_rng(0))
    cache = Cache.of(keys, values)
    dense_in = [torch.from_numpy(each) for each in (q[None, :, None], keys[None], values[None])]
    true = scaled_dot_product_attention(*dense_in)[0, :, 0].numpy()

    rows = []
    for epsilon in (0.1, 0.2):
        attention = VAttention(QuestPages(64), top=0.01, spec=BudgetSpec(epsilon=epsilon, pilot=0.01))
        sketches = [attention.scorer.sketch(keys[h]) for h in range(HEADS)]
        steps: list[Decoded] = []
        runs: dict[str, list[float]] = {}
        for step in range(options.repeats + 1):
            for name, work in (
                ("ours", partial(attention, q, cache, sketches, step=step)),
                ("dense", partial(scaled_dot_product_attention, *dense_in)),
            ):
                began = time.process_time()
                found = work()
                runs.setdefault(name, []).append(time.process_time() - began)
                if name == "ours":
                    steps.append(found)
        ours, theirs = (median(runs[name][1:]) for name in ("ours", "dense"))
        ratio = median(b / a for a, b in zip(runs["ours"][1:], runs["dense"][1:], strict=True))
        density = float(np.mean([each.read.mean() for each in steps])) / options.keys
        whole = density + sum(each.size_bytes for each in sketches) / (keys.nbytes + values.nbytes)
        error = float(np.mean([np.linalg.norm(each.out - true, axis=1) / np.linalg.norm(true, axis=1) for each in steps]))
        meets = ratio >= BAR and whole <= DENSITY
        rows.append(
            (
                f"{epsilon:g}", f"{density:.3f}", f"{whole:.3f}", f"{error:.3f}", f"{ours * 1e3:.1f}", f"{theirs * 1e3:.1f}",
                f"{ratio:.2f}", "holds" if meets else "MISSED",
            )
        )  # fmt: skip
    print(f"{HEADS} heads over {options.keys:,} keys; bar: at least {BAR:g} x dense, at most {DENSITY:.0%} of its bytes read")
    print(Table(("epsilon", "density", "bytes, with bounds", "mean error", "ms", "dense ms", "x", "bar"), tuple(rows)))


if __name__ == "__main__":
    main()
