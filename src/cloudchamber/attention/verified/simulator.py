"""The verified world of budgets: what each sample costs, and whether it kept the promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .asking import REASONS, asked
from .coverage import clopper_pearson
from .model import BudgetSpec, Sampling, sampling_of
from .workloads import Head

LEVEL = 0.98  # of a two-sided interval: each limit errs once in a hundred


@dataclass(frozen=True, eq=False)
class Run:
    """Every sample of a trial, heads one after another: its size, why, its density, and the relative errors of output and denominator."""

    b: np.ndarray
    reason: np.ndarray  # index into REASONS
    density: np.ndarray
    error: np.ndarray
    denominator_error: np.ndarray


def run(policy: Any, spec: BudgetSpec, heads: Sequence[Head], rng: np.random.Generator) -> Run:
    """Ask for the size of every sample, and draw it.

    Raises
    ------
    CandidateError
        If an answer is no decision, or not between the pilot and all residual keys.
    """
    policy.reset(spec, rng)
    sampling = sampling_of(policy)
    parts = []
    for head in heads:
        decisions = [asked(policy, pilot, head.n_s, spec) for pilot in head.pilots_of(sampling)]
        b = np.array([each.b for each in decisions])
        reason = np.array([REASONS.index(each.reason) for each in decisions])
        parts.append((b, reason, head.density(b, sampling), *errors(head, b, sampling=sampling)))
    return Run(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def errors(head: Head, b: np.ndarray, dtype: Any = np.float64, sampling: Sampling = "uniform") -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of output and denominator of samples of these sizes; 0 where every key is read."""
    truth = head.anyway + head.terms.sum(axis=0)
    partial = np.flatnonzero(b < head.n_s)
    both = np.zeros((2, len(b)))
    if len(partial):
        weights = head.weights(partial, b[partial], sampling).astype(dtype, copy=False)
        found = head.anyway + weights @ head.terms.astype(dtype, copy=False)
        out = truth[:-1] / truth[-1]
        both[0, partial] = np.linalg.norm(found[:, :-1] / found[:, -1:] - out, axis=1) / np.linalg.norm(out)
        both[1, partial] = np.abs(found[:, -1] / truth[-1] - 1)
    return both[0], both[1]


def repaired(density: float, failures: int, samples: int, delta: float) -> tuple[float, float]:
    """Density once the promise is kept, and the lower limit of the failure probability it is judged by.

    A budget that fails more often than delta can still be made to keep its promise: read everything in a share p of the calls, with
    (1 - p) · failures = delta. That costs (1 - p) · density + p. So a budget that breaks its promise is neither void, which would
    hide by how much, nor rewarded for what it does not read. The 99 % lower limit stands for the failure probability, so that nobody is
    charged for bad luck.

    Examples
    --------
    >>> repaired(0.1, 4, 100, 0.1)[0]
    0.1
    >>> round(repaired(0.1, 100, 100, 0.1)[0], 2)
    0.91
    """
    low = clopper_pearson(failures, samples, LEVEL)[0]
    share = max(0.0, 1 - delta / low) if low > 0 else 0.0
    return (1 - share) * density + share, low
