"""Draw the picture of the documentation from a real run: one published instance, three policies.

Run it with the published instances at hand: ``.venv/bin/python scripts/placement_figure.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloudchamber import study
from cloudchamber.placement.figures import gpus_chart

COLOURS = {"ink": "#1c2430", "soft": "#5b6675", "rule": "#d9dee5", "spot": "#0b7fab", "demand": "#d9622b", "dead": "#b3202c"}
STYLE = "text{fill:#5b6675;font:12px system-ui,sans-serif}.strong{fill:#1c2430;font-weight:600}.grid{stroke:#d9dee5;stroke-width:1}"
POLICIES = ["PrismGreedy", "GreedyMixed", "ExactPacking"]
TARGET = Path(__file__).parents[1] / "docs" / "img" / "placement-gpus.svg"


def main() -> None:
    """Write the SVG."""
    results = study("placement", POLICIES, ["prism"], n_jobs=1)
    metric = results.study.objective
    worse = {trial.seed: trial.ratio(metric) for trial in results.of("prism", "PrismGreedy")}
    seed = sorted(worse, key=worse.__getitem__)[len(worse) * 3 // 4]  # the upper quartile of what greedy loses, not the most flattering
    svg = gpus_chart(results, "prism", seed)
    for name, colour in COLOURS.items():
        svg = svg.replace(f"var(--{name})", colour)
    assert "var(" not in svg, re.findall(r"var\([^)]*\)", svg)
    head = svg.index(">") + 1
    opening = f'{svg[: head - 1]} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    TARGET.write_text(f"{opening}{svg[head:]}\n")
    print(TARGET.relative_to(TARGET.parents[2]), f"instance {seed}")


if __name__ == "__main__":
    main()
