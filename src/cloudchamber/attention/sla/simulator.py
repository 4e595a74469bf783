"""The verified world of routers: what is critical, what is lost, and how far the output is off with the best linear branch there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudchamber.attention.model import BlockIndex, Blocks, scale_of
from cloudchamber.attention.simulator import fresh
from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError

from .model import CRITICAL, NEGLIGIBLE, Routes, RouteSpec, estimate
from .ranks import stable_rank
from .sums import additions
from .workloads import Instance

EPSILON = 1e-5  # of the denominator, as the module has it


def run(policy: Any, spec: RouteSpec, instance: Instance, rng: np.random.Generator) -> np.ndarray:
    """Ask about every head, and return the labels, (heads, query blocks, key blocks).

    Raises
    ------
    CandidateError
        If an answer is no array of labels of the right shape, leaves a row without a critical block, or has too many.
    """
    policy.reset(spec, rng)
    found = []
    for head, shown in enumerate(instance.views):
        view = fresh(shown)
        answer = ask(policy.route, view)
        if not isinstance(answer, Routes) or type(answer.labels) is not np.ndarray or answer.labels.dtype != np.int8:
            raise CandidateError("route() must return Routes(labels) with labels of int8", "type")
        if answer.labels.shape != view.scores.shape:
            raise CandidateError(f"the labels must have the shape {view.scores.shape}, got {answer.labels.shape}", "type")
        if answer.labels.min() < NEGLIGIBLE or answer.labels.max() > CRITICAL:
            raise CandidateError(f"labels must be -1, 0 or 1, got {answer.labels.min()} to {answer.labels.max()}", "type")
        critical = (answer.labels == CRITICAL).sum(axis=1)
        if critical.min() < 1:
            raise CandidateError(f"query block {int(critical.argmin())} of head {head} has no critical key block; give it one", "type")
        if critical.sum() > spec.critical * len(critical):
            raise CandidateError(
                f"{critical.sum()} blocks of head {head} are critical, the budget is {spec.critical * len(critical)}: {spec.critical} for "
                f"each of {len(critical)} rows",
                "type",
            )
        found.append(answer.labels)
    return np.stack(found)


def share(chosen: np.ndarray, instance: Instance) -> np.ndarray:
    """Share of the true attention that lies on chosen pairs of blocks, averaged over the queries of each head: (heads,)."""
    size = instance.blocks.sizes[0].astype(np.float64)
    return np.asarray((instance.mass * chosen).sum(axis=2) @ size / size.sum())


def missed(critical: np.ndarray, instance: Instance) -> np.ndarray:
    """Root of the mean square, over the queries of each head, of the share of attention that a query block does not read: (heads,)."""
    size = instance.blocks.sizes[0].astype(np.float64)
    left = np.maximum((instance.mass * ~critical).sum(axis=2), 0.0)
    return np.asarray(np.sqrt(left**2 @ size / size.sum()))


@dataclass(frozen=True)
class Judged:
    """How far the output is off (L2, relative to dense attention's), and what is left to the linear branch.

    Parameters
    ----------
    sparse_error : float
        Of the critical blocks alone.
    error : float
        With the linear branch, whose projection is the one that fits best.
    ratio_error : float
        With the two mixed by the critical share that the pooled scores estimate, nothing fitted.
    rank_ratio : float
        Stable rank of attention outside the critical blocks over that inside, mean of the heads.
    """

    sparse_error: float
    error: float
    ratio_error: float
    rank_ratio: float


def judge(labels: np.ndarray, instance: Instance, region: str) -> Judged:
    """Compute the output in float64, as the module defines it; phi is a softmax over the features."""
    tensors, blocks = instance.tensors, instance.blocks
    fine, ranks = np.empty_like(instance.out), []
    critical = BlockIndex.of(labels == CRITICAL, blocks, blocks).to_mask()
    for h in range(len(labels)):
        logits = tensors.q[h].astype(np.float64) @ tensors.k[h].T.astype(np.float64) * scale_of(tensors.q.shape[2])
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        read = p * critical[h]
        fine[h] = read @ tensors.v[h] / np.maximum(read.sum(axis=1, keepdims=True), 1e-300)
        inside = stable_rank(read.astype(np.float32))
        ranks.append(stable_rank((p - read).astype(np.float32)) / max(inside, 1e-300))
    left = (instance.out - fine).reshape(-1, fine.shape[2])
    branch = linear(tensors.q, tensors.k, tensors.v, marginal(labels, region), blocks)
    read = np.stack([(estimate(view) * (each == CRITICAL)).sum(axis=1) for view, each in zip(instance.views, labels, strict=True)])
    mixed = np.repeat(read, blocks.sizes[0], axis=1)[..., None]
    mixed = mixed * fine + (1 - mixed) * branch - instance.out
    design = np.concatenate([branch.reshape(left.shape), np.ones((len(left), 1))], axis=1)
    fitted = left - design @ np.linalg.lstsq(design, left, rcond=None)[0]
    size = float(np.linalg.norm(instance.out))
    sparse, best, ratio = (float(np.linalg.norm(each)) / size for each in (left, fitted, mixed))
    return Judged(sparse, best, ratio, float(np.mean(ranks)))


def marginal(labels: np.ndarray, region: str) -> np.ndarray:
    """Blocks that the linear branch sees."""
    return np.asarray({"marginal": labels == 0, "complement": labels != CRITICAL, "all": np.ones(labels.shape, bool)}[region])


def linear(q: np.ndarray, k: np.ndarray, v: np.ndarray, marginal: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Linear attention over marginal blocks, token by token in float64: a plain reference, not a fast kernel."""
    found = np.zeros(v.shape)
    for h in range(len(found)):
        phi_q, phi_k = _softmax(q[h].astype(np.float64)), _softmax(k[h].astype(np.float64))
        weight = phi_q @ phi_k.T * BlockIndex.of(marginal[h : h + 1], blocks, blocks).to_mask()[0]
        found[h] = weight @ v[h] / (weight.sum(axis=1, keepdims=True) + EPSILON)
    return found


def flops(labels: np.ndarray, instance: Instance, region: str) -> float:
    """Operations of the kernel, of the linear branch and of its projection, as a share of dense attention's."""
    heads, tokens, dim = instance.tensors.q.shape
    density = BlockIndex.of(labels == CRITICAL, instance.blocks, instance.blocks).density()
    branch = heads * tokens * (4.0 * dim * (dim + 1) + 2.0 * dim**2)
    if region != "all":
        branch += additions(marginal(labels, region).sum(axis=2), labels.shape[2]) * dim * (dim + 1)
    return float(density + branch / (4.0 * heads * tokens**2 * dim))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))
