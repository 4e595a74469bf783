"""The verified world of cluster rules: what the kept pairs cost, catch and miss."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from cloudchamber.attention.model import BlockIndex
from cloudchamber.attention.simulator import attended, fresh
from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError

from .model import ClusterSpec, Kept
from .workloads import Instance


def run(policy: Any, spec: ClusterSpec, instance: Instance, rng: np.random.Generator) -> np.ndarray:
    """Ask about every head, and return the masks, (heads, query clusters, key clusters).

    Raises
    ------
    CandidateError
        If an answer is no mask of the right shape, or leaves a query without keys.
    """
    policy.reset(spec, rng)
    masks = []
    for head, shown in enumerate(instance.views):
        view = fresh(msgspec.structs.replace(shown, p=spec.p))
        answer = ask(policy.keep, view)
        if not isinstance(answer, Kept) or type(answer.mask) is not np.ndarray or answer.mask.dtype != bool:
            raise CandidateError("keep() must return Kept(mask) with a mask of booleans", "type")
        if answer.mask.shape != view.prob.shape:
            raise CandidateError(f"the mask must have the shape {view.prob.shape}, got {answer.mask.shape}", "type")
        empty = (view.sizes_q > 0) & ~(answer.mask & (view.sizes_k > 0)).any(axis=1)
        if empty.any():
            raise CandidateError(f"query cluster {int(np.argmax(empty))} of head {head} reads no key; keep at least one for it", "type")
        masks.append(answer.mask)
    return np.stack(masks)


def recall(masks: np.ndarray, instance: Instance) -> np.ndarray:
    """Share of the true attention that is caught, averaged over the queries of each head: (heads,)."""
    size = np.broadcast_to(instance.q_blocks.sizes, (len(masks), masks.shape[1])).astype(np.float64)
    return np.asarray(((instance.mass * masks).sum(axis=2) * size).sum(axis=1) / size.sum(axis=1))


def repaired(density: np.ndarray, recall: np.ndarray, least: float) -> np.ndarray:
    """Density of each head after reading pairs by lot until it catches ``least``: a share x of the rest costs and brings x of what is left.

    So a rule that promises more than it delivers stays comparable, and does not look cheap.
    """
    missing = np.clip((least - recall) / np.maximum(1 - recall, 1e-12), 0.0, 1.0)
    return np.asarray(density + (1 - density) * missing)


def index_of(masks: np.ndarray, instance: Instance) -> BlockIndex:
    """The masks as a kernel takes them."""
    return BlockIndex.of(masks, instance.q_blocks, instance.k_blocks)


def error(masks: np.ndarray, instance: Instance) -> float:
    """Relative distance (L2) of the output from dense attention's."""
    out = attended(instance.tensors, index_of(masks, instance))
    return float(np.linalg.norm(out - instance.out) / np.linalg.norm(instance.out))
