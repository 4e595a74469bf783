"""Draw the picture of the documentation from a real run: the public batch w1 in order of arrival and as local search orders it.

Run it with the public batches at hand: ``.venv/bin/python scripts/transactions_figure.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloudchamber import study
from cloudchamber.core.registry import load_study
from cloudchamber.transactions.figures import timeline

COLOURS = {"c0": "#222b36", "spot": "#0b7fab", "demand": "#d9622b", "up": "#d7e3ea"}
STYLE = "text{fill:#5b6675;font:12px system-ui,sans-serif}.strong{fill:#1c2430;font-weight:600}.grid{stroke:#d9dee5;stroke-width:1}"
TARGET = Path(__file__).parents[1] / "docs" / "img" / "transactions-timeline.svg"


def main() -> None:
    """Write the SVG."""
    subject = load_study("transactions")
    workload = subject.adjusted(subject.workloads()["w1"], budget=20_000_000)
    results = study("transactions", ["FIFO", "LocalSearch"], [workload], seeds=1)
    svg = timeline(results.workloads["w1"].world(0), {trial.policy: trial.outcome for trial in results.trials})
    for name, colour in COLOURS.items():
        svg = svg.replace(f"var(--{name})", colour)
    assert "var(" not in svg, re.findall(r"var\([^)]*\)", svg)
    head = svg.index(">") + 1
    opening = f'{svg[: head - 1]} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    TARGET.write_text(f"{opening}{svg[head:]}\n")
    print(TARGET.relative_to(TARGET.parents[2]))


if __name__ == "__main__":
    main()
