"""Draw the picture of README and documentation from a real run: one start of the hardest trace, three policies.

Run it with the public traces at hand: ``.venv/bin/python scripts/spot_figure.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloudchamber import study
from cloudchamber.spot.figures import timeline

COLOURS = {
    "ink": "#1c2430",
    "soft": "#5b6675",
    "rule": "#d9dee5",
    "spot": "#0b7fab",
    "demand": "#d9622b",
    "up": "#d7e3ea",
    "dead": "#b3202c",
    "slack": "#6b4fbb",
}
STYLE = "text{fill:#5b6675;font:12px system-ui,sans-serif}.strong{fill:#1c2430;font-weight:600}.grid{stroke:#d9dee5;stroke-width:1}"
POLICIES = ["SkyNomad", "UniformProgressSwitch"]
TARGET = Path(__file__).parents[1] / "docs" / "img" / "spot-timeline.svg"


def main() -> None:
    """Write the SVG."""
    results = study("spot", POLICIES, ["h100-gang16-tp1.1"], n_jobs=-1)
    gap = {seed: _cost(results, "UniformProgressSwitch", seed) - _cost(results, "SkyNomad", seed) for seed in range(12)}
    seed = sorted(gap, key=gap.__getitem__)[9]  # the upper quartile of what SkyNomad saves, not the most flattering start
    svg = timeline(results, "h100-gang16-tp1.1", seed)
    for name, colour in COLOURS.items():
        svg = svg.replace(f"var(--{name})", colour)
    assert "var(" not in svg, re.findall(r"var\([^)]*\)", svg)
    head = svg.index(">") + 1
    opening = f'{svg[: head - 1]} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    TARGET.write_text(f"{opening}{svg[head:]}\n")
    print(TARGET.relative_to(TARGET.parents[2]), f"start {seed}")


def _cost(results, policy: str, seed: int) -> float:
    return next(trial for trial in results.of("h100-gang16-tp1.1", policy) if trial.seed == seed).outcome.metrics["cost_usd"]


if __name__ == "__main__":
    main()
