"""The report's picture of tile selectors: the maps of the module attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.attention.figures import sheet
from cloudchamber.core.study import Figure

if TYPE_CHECKING:
    from cloudchamber.core.results import Results


def figures(results: Results) -> list[Figure]:
    """One sheet of maps for each workload, of the first seed and its first head."""
    made = []
    for name in results.workloads:
        found = [t for t in results.of(name) if not t.outcome.is_void and t.seed == 0]
        if found:
            mass = np.asarray(found[0].outcome.series["mass"])[0]
            made.append(
                Figure(
                    f"Tiles that are read: {name}",
                    "A row is a tile of queries, a column a tile of keys. Left: dense attention. Then what each selector reads: blue where "
                    "attention is, grey where it is wasted.",
                    sheet(mass, {t.policy: np.asarray(t.outcome.series["mask"])[0] for t in found}),
                )
            )
    return made
