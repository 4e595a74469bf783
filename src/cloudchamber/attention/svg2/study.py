"""The study ``attention.svg2``: which pairs of semantic clusters are computed to catch a share of the attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .model import ClusterKeep, ClusterSpec

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .workloads import Instance, Svg2Workload

SLACK = 0.05  # recall that may be missing


class Svg2Study(Study):
    """Which pairs of clusters of queries and keys are computed (``attention.svg2``)."""

    name = "attention.svg2"
    title = "Attention between semantic clusters"
    systems = ("Sparse VideoGen2", "Sparse VideoGen", "XAttention")
    papers = (
        "Sparse VideoGen2: Accelerate Video Generation with Sparse Attention via Semantic-Aware Permutation",
        "Sparse VideoGen: Accelerating Video Diffusion Transformers with Spatial-Temporal Sparsity",
        "XAttention: Block Sparse Attention with Antidiagonal Scoring",
    )
    protocol = ClusterKeep
    metrics = (
        Metric("repaired_density", "1", high=1 + 1e-9),
        Metric("density", "1", high=1 + 1e-9),
        Metric("recall", "1", "max", high=1 + 1e-9),
        Metric("error", "1"),
        Metric("worst_head_recall", "1", "max", high=1 + 1e-9),
    )
    floor = ("KeepAll", "RandomClusters")
    claims = CLAIMS
    sources = ("attention/model.py", "attention/generators.py", "attention/simulator.py", "attention/svg2/**/*.py")
    notes = (
        "Every rule is asked for the same share p of the attention. Density is the share of all pairs of tokens that is computed. Where a "
        "head catches less than p - 0.05, repaired_density adds what it would cost to read pairs by lot until it does.",
        "Tensors and seeds are the same for every cut, so rows of different workloads may be compared. OracleMass knows the attention.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in rules."""
        from . import (
            CalibratedTopP,
            CentroidTopP,
            ClusterSpatialTemporal,
            KeepAll,
            OracleMass,
            RandomClusters,
            Threshold,
            TopK,
            XAttentionLike,
        )  # fmt: skip

        classes = (
            CalibratedTopP, CentroidTopP, XAttentionLike, TopK, Threshold, ClusterSpatialTemporal, RandomClusters, KeepAll, OracleMass,
        )  # fmt: skip
        return {cls.__name__: cls for cls in classes}

    def workloads(self) -> Mapping[str, Svg2Workload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def adjusted(self, workload: Any, **params: Any) -> Svg2Workload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Ask about every head."""
        from .simulator import run

        instance = workload.instance(seed)
        future = instance.mass if is_clairvoyant(policy) else None
        masks = run(policy, ClusterSpec(workload.p, workload.heads, future), instance, rng_of(self.name, workload.name, seed))
        return _outcome(masks, instance, workload.p)

    def bound(self, workload: Any, seed: int) -> Bound:
        """The relaxation in which pairs are taken by attention for their cost."""
        from .optimum import least_density

        return Bound(least_density(workload.instance(seed), workload.p - SLACK), False)

    def figures(self, results: Results) -> Sequence[Figure]:
        """What is computed against what is caught."""
        from .figures import figures

        return figures(results)


def _outcome(masks: np.ndarray, instance: Instance, p: float) -> Outcome:
    from .simulator import error, index_of, recall, repaired

    heads = recall(masks, instance)
    index = index_of(masks, instance)
    q, k = (np.broadcast_to(each.sizes, (len(masks), each.count)).astype(float) for each in (instance.q_blocks, instance.k_blocks))
    density = np.einsum("hqk,hq,hk->h", masks, q, k) / (q.sum(axis=1) * k.sum(axis=1))
    worst = int(heads.argmin())
    metrics = {
        "repaired_density": float(repaired(density, heads, p - SLACK).mean()),
        "density": index.density(),
        "recall": float(heads.mean()),
        "error": error(masks, instance),
        "worst_head_recall": float(heads[worst]),
    }
    missed = np.where(masks[worst], 0.0, instance.mass[worst]) * q[worst][:, None]
    row, column = (int(i) for i in np.unravel_index(int(missed.argmax()), missed.shape))
    feedback = (
        f"density {metrics['density']:.3f}, recall {heads.mean():.3f} where {p:g} was asked for; worst: head {worst}, {heads[worst]:.3f}. "
        f"The largest miss: query cluster {row} pays {instance.mass[worst, row, column]:.2f} of its attention to key cluster {column}, "
        f"which was estimated at {instance.views[worst].prob[row, column]:.2f}."
    )
    return Outcome(metrics, (), {"recall": heads, "density": density}, feedback)
