"""Sums over the marginal key blocks of each query block: of these blocks, or all minus the others, whichever are fewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from cloudchamber.attention.model import Rows


@dataclass(frozen=True)
class Sums:
    """How the sum of each row is formed.

    Parameters
    ----------
    rows : Rows
        Of heads x rows: the parts that are added, or taken from the total of the head.
    from_total : ndarray of bool, shape (heads, rows)
        Which of the two.
    parts : int
        Parts of a head.
    """

    rows: Rows
    from_total: np.ndarray
    parts: int

    @classmethod
    def of(cls, mask: np.ndarray, direct: np.ndarray | None = None) -> Self:
        """The cheaper way to sum what is true in each row of (heads, rows, parts); rows that are ``direct`` are not taken from the total.

        Examples
        --------
        >>> made = Sums.of(np.array([[[True, True, True, False], [True, False, False, False]]]))
        >>> made.from_total.tolist(), made.rows.indices.tolist()
        ([[True, False]], [3, 0])
        """
        from_total = dearer(mask.sum(axis=2), mask.shape[2])
        if direct is not None:
            from_total &= ~direct
        return cls(Rows.of(mask ^ from_total[..., None]), from_total, mask.shape[2])


def dearer(marginal: np.ndarray, parts: int) -> np.ndarray:
    """Whether to add so many parts costs more than to take the others from the total."""
    return np.asarray(parts - marginal < marginal)


def additions(marginal: np.ndarray, parts: int) -> float:
    """Parts that are added or taken away in all rows, given how many of each are marginal; one total for each head that needs it.

    Examples
    --------
    >>> additions(np.array([[3, 1]]), 4)
    6.0
    """
    total = dearer(marginal, parts).any(axis=1).sum() * parts
    return float(np.minimum(marginal, parts - marginal).sum() + total)
