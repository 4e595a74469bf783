"""Draw the picture of the documentation from a real run: one of the published jobs, three policies.

Run it with the public grids at hand: ``.venv/bin/python scripts/broadcast_figure.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloudchamber import study
from cloudchamber.broadcast.figures import trees_chart

COLOURS = {"ink": "#1c2430", "soft": "#5b6675", "spot": "#0b7fab", "demand": "#d9622b", "slack": "#6b4fbb", "paper, #fff": "#fff"}
STYLE = "text{fill:#5b6675;font:12px system-ui,sans-serif}.strong{fill:#1c2430;font-weight:600}.grid{stroke:#d9dee5;stroke-width:1}"
POLICIES = ["DijkstraPaths", "TakahashiMatsuyama", "TreeSearch"]
TARGET = Path(__file__).parents[1] / "docs" / "img" / "broadcast-trees.svg"


def main() -> None:
    """Write the SVG."""
    results = study("broadcast", POLICIES, ["cloudcast"], n_jobs=1)
    metric = results.study.objective
    dearer = {trial.seed: trial.ratio(metric) for trial in results.of("cloudcast", "DijkstraPaths")}
    seed = sorted(dearer, key=dearer.__getitem__)[len(dearer) // 2]  # the median job
    svg = trees_chart(results, "cloudcast", seed)
    for name, colour in COLOURS.items():
        svg = svg.replace(f"var(--{name})", colour)
    assert "var(" not in svg, re.findall(r"var\([^)]*\)", svg)
    head = svg.index(">") + 1
    opening = f'{svg[: head - 1]} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    TARGET.write_text(f"{opening}{svg[head:]}\n")
    print(TARGET.relative_to(TARGET.parents[2]), f"job {seed}")


if __name__ == "__main__":
    main()
