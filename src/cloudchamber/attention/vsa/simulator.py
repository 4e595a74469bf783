"""The verified world of tile selectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from cloudchamber.attention.model import BlockIndex
from cloudchamber.attention.simulator import attended, fresh
from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError

from .model import Tiles, TileSpec
from .workloads import Instance


def run(policy: Any, spec: TileSpec, instance: Instance, rng: np.random.Generator) -> np.ndarray:
    """Ask about every head, and return the masks, (heads, tiles, tiles).

    Raises
    ------
    CandidateError
        If an answer is no mask of the right shape, leaves a tile without keys, or reads more than K tiles in a row.
    """
    policy.reset(spec, rng)
    masks = []
    for head, shown in enumerate(instance.views):
        view = fresh(shown)
        answer = ask(policy.select, view)
        if not isinstance(answer, Tiles) or type(answer.mask) is not np.ndarray or answer.mask.dtype != bool:
            raise CandidateError("select() must return Tiles(mask) with a mask of booleans", "type")
        if answer.mask.shape != view.scores.shape:
            raise CandidateError(f"the mask must have the shape {view.scores.shape}, got {answer.mask.shape}", "type")
        read = answer.mask.sum(axis=1)
        if read.min() < 1 or read.max() > spec.keep:
            row = int(np.argmax((read < 1) | (read > spec.keep)))
            raise CandidateError(f"query tile {row} of head {head} reads {read[row]} key tiles; 1 to {spec.keep} are allowed", "type")
        masks.append(answer.mask)
    return np.stack(masks)


def recall(masks: np.ndarray, instance: Instance) -> np.ndarray:
    """Share of the true attention that is caught, averaged over the queries of each head: (heads,)."""
    size = instance.blocks.sizes[0].astype(np.float64)
    return np.asarray((instance.mass * masks).sum(axis=2) @ size / size.sum())


def error(masks: np.ndarray, instance: Instance) -> float:
    """Relative distance (L2) of the output from dense attention's."""
    out = attended(instance.tensors, BlockIndex.of(masks, instance.blocks, instance.blocks))
    return float(np.linalg.norm(out - instance.out) / np.linalg.norm(instance.out))
