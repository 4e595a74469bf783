"""The study ``attention.sla``: which key blocks each query block reads in full, leaves to a linear branch, or skips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .model import CRITICAL, NEGLIGIBLE, BlockRoute, RouteSpec

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .workloads import Instance, SlaWorkload


class SlaStudy(Study):
    """Which key blocks are critical, marginal and negligible to each query block (``attention.sla``)."""

    name = "attention.sla"
    title = "Sparse and linear attention together"
    systems = ("SLA", "SpargeAttention")
    papers = (
        "SLA: Beyond Sparsity in Diffusion Transformers via Fine-Tunable Sparse-Linear Attention",
        "SpargeAttention: Accurate and Training-free Sparse Attention Accelerating Any Model Inference",
    )
    protocol = BlockRoute
    metrics = (
        Metric("missed", "1", high=1 + 1e-9),
        Metric("recall", "1", "max", high=1 + 1e-9),
        Metric("error", "1"),
        Metric("sparse_error", "1"),
        Metric("ratio_error", "1"),
        Metric("lost", "1", high=1 + 1e-9),
        Metric("flops", "1"),
        Metric("rank_ratio", "1"),
    )
    floor = ("RandomRoute",)
    claims = CLAIMS
    sources = (
        "attention/model.py",
        "attention/generators.py",
        "attention/simulator.py",
        *(f"attention/sla/{name}.py" for name in ("claims", "model", "optimum", "policies/*", "pooling", "ranks", "simulator", "study")),
        *(f"attention/sla/{name}.py" for name in ("sums", "workloads")),
    )
    notes = (
        "Every router may call as many blocks of a head critical. missed is the root mean square, over queries, of the share of attention "
        "that a query block does not read: the output of the critical blocks is off by that share of the distance between what is read and "
        "what is not. Squared, because rows that read next to nothing are worst. The bound is exact, and OracleRoute attains it.",
        "sparse_error is the output's relative L2 distance from dense attention with the critical blocks alone; error the same with the "
        "linear branch, whose projection, one for all heads, is the least-squares fit on the trial itself: no training of the projection "
        "alone could do better, but training the whole model may. ratio_error mixes the two by an estimate of the critical share, nothing "
        "fitted. No bound on errors is known, so they are not the objective, and a router may lead in missed and not in them.",
        "lost is the share of attention on negligible blocks, flops the share of dense attention's operations (at this scale the linear "
        "branch's part is far larger than in a real model), rank_ratio the stable rank of attention outside the critical blocks over that "
        "inside.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in routers."""
        from . import HybridTopKTopP, OracleRoute, RandomRoute, SpargeLike, TopP, TopShare

        return {cls.__name__: cls for cls in (TopShare, TopP, HybridTopKTopP, SpargeLike, RandomRoute, OracleRoute)}

    def workloads(self) -> Mapping[str, SlaWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def adjusted(self, workload: Any, **params: Any) -> SlaWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Ask about every head."""
        from .simulator import run

        instance = workload.instance(seed)
        future = instance.mass if is_clairvoyant(policy) else None
        critical, negligible = workload.counts(instance.blocks.count)
        spec = RouteSpec(critical, negligible, workload.heads, future)
        return _outcome(run(policy, spec, instance, rng_of(self.name, workload.name, seed)), instance, workload.region)

    def bound(self, workload: Any, seed: int) -> Bound:
        """The blocks that leave least to be missed."""
        from .optimum import best_labels

        instance = workload.instance(seed)
        best = _outcome(best_labels(instance, *workload.counts(instance.blocks.count)), instance, workload.region)
        return Bound(best.metrics["missed"], True, best)

    def figures(self, results: Results) -> Sequence[Figure]:
        """Maps of the labels, and what the linear branch repairs."""
        from .figures import figures

        return figures(results)


def _outcome(labels: np.ndarray, instance: Instance, region: str) -> Outcome:
    from .simulator import flops, judge, missed, share

    critical = labels == CRITICAL
    heads, judged = missed(critical, instance), judge(labels, instance, region)
    metrics = {
        "missed": float(heads.mean()),
        "recall": float(share(critical, instance).mean()),
        "error": judged.error,
        "sparse_error": judged.sparse_error,
        "ratio_error": judged.ratio_error,
        "lost": float(share(labels == NEGLIGIBLE, instance).mean()),
        "flops": flops(labels, instance, region),
        "rank_ratio": judged.rank_ratio,
    }
    unread = np.where(critical, 0.0, instance.mass)
    head, row, column = (int(i) for i in np.unravel_index(int(unread.argmax()), unread.shape))
    label = "negligible" if labels[head, row, column] == NEGLIGIBLE else "marginal"
    scores = instance.views[head].scores[row]
    feedback = (
        f"missed {metrics['missed']:.3f}, worst head {int(heads.argmax())} with {heads.max():.3f}; output off by "
        f"{judged.sparse_error:.3f}, by {judged.error:.3f} with the best linear branch; {metrics['lost']:.3f} of the attention is on "
        f"negligible blocks. The largest miss: query block {row} of head {head} pays {unread[head, row, column]:.2f} of its attention to "
        f"key block {column}, which is {label}, scored {int((scores > scores[column]).sum()) + 1}. of {len(scores)}."
    )
    return Outcome(metrics, (), {"labels": labels, "mass": instance.mass.astype(np.float32)}, feedback)
