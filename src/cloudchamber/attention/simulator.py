"""The verified world of selectors: what a selection catches of the true attention, and how far the output is off."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError
from cloudchamber.core.messages import Message, decode, encode

from .generators import Tensors
from .model import AttentionSpec, BlockIndex, Blocks, Selection, scale_of
from .workloads import Instance

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, eq=False)
class Run:
    """One selection, checked: its mask for every head, and the seconds it took."""

    mask: np.ndarray
    select_s: float


def run(policy: Any, spec: AttentionSpec, instance: Instance, rng: np.random.Generator) -> Run:
    """Ask a selector once.

    Raises
    ------
    CandidateError
        If the answer is no mask of the right shape, leaves a query block without keys, or spends more than the budget.
    """
    policy.reset(spec, rng)
    scene = fresh(instance.scene)
    before = time.perf_counter()
    answer = ask(policy.select, scene)
    select_s = time.perf_counter() - before
    heads, rows, columns = len(scene.q), scene.q_blocks.count, scene.k_blocks.count
    if not isinstance(answer, Selection) or type(answer.mask) is not np.ndarray or answer.mask.dtype != bool:
        raise CandidateError("select() must return Selection(mask) with a mask of booleans", "type")
    if answer.mask.shape not in ((1, rows, columns), (heads, rows, columns)):
        raise CandidateError(f"the mask must have the shape ({heads} or 1, {rows}, {columns}), got {answer.mask.shape}", "type")
    mask = np.broadcast_to(answer.mask, (heads, rows, columns))
    if not mask.any(axis=2).all():
        head, row = (int(i) for i in np.argwhere(~mask.any(axis=2))[0])
        raise CandidateError(f"query block {row} of head {head} reads no key block; give it at least one", "type")
    if mask.sum() > scene.keep * heads * rows:
        raise CandidateError(
            f"{int(mask.sum())} blocks are read, the budget is {scene.keep * heads * rows}: {scene.keep} for each of {heads} x {rows} rows",
            "type",
        )
    return Run(mask, select_s)


def fresh(message: M) -> M:
    """A copy down to the arrays: whoever is given it cannot change what later trials see."""
    return decode(encode(message), type(message))


def recall(mask: np.ndarray, instance: Instance) -> np.ndarray:
    """Share of the true attention that is caught, averaged over the queries of each head: (heads,)."""
    size = instance.scene.q_blocks.sizes[0].astype(np.float64)
    return np.asarray((instance.mass * mask).sum(axis=2) @ size / size.sum())


def attended(tensors: Tensors, index: BlockIndex | None) -> np.ndarray:
    """Output of attention in float64, over all keys or those an index names; a plain reference, not a fast kernel."""
    mask = None if index is None else index.to_mask()
    found = np.zeros(tensors.v.shape)
    for h in range(len(found)):
        logits = tensors.q[h].astype(np.float64) @ tensors.k[h].T.astype(np.float64) * scale_of(tensors.q.shape[2])
        if mask is not None:
            logits[~mask[h if len(mask) > 1 else 0]] = -np.inf
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        found[h] = p @ tensors.v[h] / p.sum(axis=1, keepdims=True)
    return found


def error(mask: np.ndarray, instance: Instance) -> float:
    """Relative distance (L2) of the output from dense attention's."""
    blocks: Blocks = instance.scene.q_blocks
    out = attended(instance.tensors, BlockIndex.of(np.asarray(mask), blocks, instance.scene.k_blocks))
    return float(np.linalg.norm(out - instance.out) / np.linalg.norm(instance.out))
