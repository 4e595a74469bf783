"""Draw the picture of the documentation from a real run: what 32 GPUs carried under four policies.

Run it: ``.venv/bin/python scripts/moe_balance_figure.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloudchamber import study
from cloudchamber.moe.balance.figures import load_map

COLOURS = {"spot": "#0b7fab", "dead": "#b3202c", "rule": "#d9dee5"}
STYLE = "text{fill:#5b6675;font:12px system-ui,sans-serif}.strong{fill:#1c2430;font-weight:600}"
POLICIES = ("Static", "GreedyEPLB", "GreedyEPLB-global", "Incremental")
WORKLOAD, SEED = "v3-58x256", 0
TARGET = Path(__file__).parents[1] / "docs" / "img" / "moe-balance-loads.svg"


def main() -> None:
    """Write the SVG."""
    results = study("moe.balance", list(POLICIES), [WORKLOAD], seeds=SEED + 1)
    svg = load_map(results, WORKLOAD, SEED, POLICIES)
    for name, colour in COLOURS.items():
        svg = svg.replace(f"var(--{name})", colour)
    assert "var(" not in svg, re.findall(r"var\([^)]*\)", svg)
    svg = re.sub(r"<title>.*?</title>", "", svg)  # a picture in a page shows none
    head = svg.index(">") + 1
    opening = f'{svg[: head - 1]} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    TARGET.write_text(f"{opening}{svg[head:]}\n")
    print(TARGET.relative_to(TARGET.parents[2]))


if __name__ == "__main__":
    main()
