"""The selection that catches most at a budget."""

from __future__ import annotations

import numpy as np

from .policies.pooled_top_p import best_of_all
from .workloads import Instance


def best_mask(instance: Instance) -> np.ndarray:
    """The mask with the largest recall among all that give each query block a key block and spend no more than the budget.

    Recall is a sum over chosen pairs of blocks, each weighted by its queries, so that the largest are best: the best of each row, which
    it must have, then the rest in order. Exact where query blocks have one size, as in this study.
    """
    return best_of_all(instance.mass, instance.scene.keep)
