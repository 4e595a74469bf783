"""The study ``attention``: which key blocks each query block reads, at an equal budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .model import Selector

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .workloads import AttentionWorkload, Instance


class AttentionStudy(Study):
    """Which keys a query reads when it may read only some (``attention``)."""

    name = "attention"
    title = "Sparse attention"
    systems = ("Sparse VideoGen", "VSA", "SLA", "Quest", "StreamingLLM")
    papers = (
        "VSA: Faster Video Diffusion with Trainable Sparse Attention",
        "Sparse VideoGen2: Accelerate Video Generation with Sparse Attention via Semantic-Aware Permutation",
        "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
        "Efficient Streaming Language Models with Attention Sinks",
    )
    protocol = Selector
    metrics = (
        Metric("recall", "1", "max", high=1 + 1e-9),
        Metric("error", "1"),
        Metric("density", "1", high=1 + 1e-9),
        Metric("worst_head_recall", "1", "max", high=1 + 1e-9),
        Metric("select_s", "s", is_timed=True),
    )
    floor = ("RandomBlocks",)
    claims = CLAIMS
    sources = ("attention/*.py", "attention/policies/*.py")
    notes = (
        "Recall is the share of dense attention's weight that falls on blocks that are read; error the relative L2 distance of the output.",
        "Every selector may read the same number of blocks; the bound reads those with the most attention, known in full. The oracles "
        "compute dense attention to choose, so they save nothing.",
        "minilm: all heads of all-MiniLM-L6-v2 reading 512 tokens of its own description, seeds start at different places.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in selectors."""
        from . import OracleTopK, OracleTopP, PooledTopK, PooledTopP, RandomBlocks, SinkWindow, SlidingWindow, SpatialTemporal

        classes = (PooledTopK, PooledTopP, SpatialTemporal, SlidingWindow, SinkWindow, RandomBlocks, OracleTopK, OracleTopP)
        return {cls.__name__: cls for cls in classes}

    def workloads(self) -> Mapping[str, AttentionWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def adjusted(self, workload: Any, **params: Any) -> AttentionWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def ready(self, workload: Any) -> tuple[AttentionWorkload, str]:
        """Find the model that ``minilm`` reads, or put generated heads in its place and say so."""
        from .minilm import is_there, missing
        from .workloads import MINILM

        if workload.source != MINILM or workload.is_generated or is_there():
            return workload, ""
        return workload.twin(), f"{missing()} Until then its workload runs on a generated stand-in, and its rows say so."

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Select once, and attend."""
        from .simulator import run

        instance = workload.instance(seed)
        done = run(policy, workload.spec, instance, rng_of(self.name, workload.name, seed))
        return _outcome(done.mask, instance, done.select_s)

    def bound(self, workload: Any, seed: int) -> Bound:
        """The largest recall at this budget."""
        from .optimum import best_mask

        instance = workload.instance(seed)
        best = _outcome(best_mask(instance), instance, 0.0)
        return Bound(best.metrics["recall"], True, best)

    def figures(self, results: Results) -> Sequence[Figure]:
        """What every selector reads, beside where attention is."""
        from .figures import figures

        return figures(results)


def _outcome(mask: np.ndarray, instance: Instance, select_s: float) -> Outcome:
    from .model import BlockIndex
    from .simulator import error, recall

    heads = recall(mask, instance)
    scene = instance.scene
    metrics = {
        "recall": float(heads.mean()),
        "error": error(mask, instance),
        "density": BlockIndex.of(np.asarray(mask), scene.q_blocks, scene.k_blocks).density(),
        "worst_head_recall": float(heads.min()),
        "select_s": select_s,
    }
    missed = instance.mass * ~mask
    head, row, column = (int(i) for i in np.unravel_index(int(missed.argmax()), missed.shape))
    feedback = (
        f"recall {metrics['recall']:.3f}, output off by {metrics['error']:.3f}; worst: head {int(heads.argmin())}, {heads.min():.3f}. "
        f"The largest miss: query block {row} of head {head} pays {missed[head, row, column]:.2f} of its attention to key block {column}."
    )
    return Outcome(metrics, (), {"mask": np.asarray(mask), "mass": instance.mass.astype(np.float32)}, feedback)
