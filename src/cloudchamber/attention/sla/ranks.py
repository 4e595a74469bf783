"""How many directions a part of attention has: the observation that SLA rests on."""

from __future__ import annotations

import numpy as np

ROUNDS, CLOSE = 60, 1e-5


def stable_rank(matrix: np.ndarray) -> float:
    """The squared Frobenius norm over the squared spectral norm of a matrix without negative entries: at most its rank; 0 for zeros.

    Examples
    --------
    >>> round(stable_rank(np.eye(5)), 6), round(stable_rank(np.ones((3, 4))), 6)
    (5.0, 1.0)
    """
    total = float(np.einsum("ij,ij->", matrix, matrix, dtype=np.float64))
    if not total > 0:
        return 0.0
    x, largest = matrix.sum(axis=0), 0.0  # no entry is negative, so the leading vector has none either, and this has a part of it
    for _ in range(ROUNDS):
        x = x / np.linalg.norm(x)
        y = matrix @ x
        before, largest = largest, float(y @ y)
        if largest - before <= CLOSE * largest:
            break
        x = matrix.T @ y
    return total / largest
