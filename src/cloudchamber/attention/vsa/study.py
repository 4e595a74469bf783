"""The study ``attention.vsa``: which key tiles each query tile reads, at K tiles a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.attention.model import BlockIndex, kept
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .model import TileSelect, TileSpec

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .workloads import Instance, VsaWorkload


class VsaStudy(Study):
    """Which key tiles of a video each query tile reads (``attention.vsa``)."""

    name = "attention.vsa"
    title = "Tiles chosen by their means"
    systems = ("VSA", "MoBA", "Sliding Tile Attention", "Sparse VideoGen")
    papers = (
        "VSA: Faster Video Diffusion with Trainable Sparse Attention",
        "MoBA: Mixture of Block Attention for Long-Context LLMs",
        "Fast Video Generation with Sliding Tile Attention",
        "Sparse VideoGen: Accelerating Video Diffusion Transformers with Spatial-Temporal Sparsity",
    )
    protocol = TileSelect
    metrics = (
        Metric("recall", "1", "max", high=1 + 1e-9),
        Metric("found", "1", "max", high=1.0),
        Metric("error", "1"),
        Metric("density", "1", high=1 + 1e-9),
    )
    floor = ("RandomTiles",)
    claims = CLAIMS
    sources = ("attention/model.py", "attention/generators.py", "attention/simulator.py", "attention/vsa/**/*.py")
    notes = (
        "Every query tile may read K tiles, so the optimum reads the K with the most attention, and OracleTiles attains it. "
        "found is the share of query tiles whose strongest key tile is read.",
        "What is trained with the router (the coarse branch) is not part of the study; vsa() has it.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in selectors."""
        from . import CoarseTopK, LocalPlusTopK, MoBA, OracleTiles, RandomTiles, SlidingTiles, TileSpatialTemporal

        classes = (CoarseTopK, LocalPlusTopK, MoBA, SlidingTiles, TileSpatialTemporal, RandomTiles, OracleTiles)
        return {cls.__name__: cls for cls in classes}

    def workloads(self) -> Mapping[str, VsaWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def adjusted(self, workload: Any, **params: Any) -> VsaWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Ask about every head."""
        from .simulator import run

        instance = workload.instance(seed)
        future = instance.mass if is_clairvoyant(policy) else None
        spec = TileSpec(workload.tiles, workload.keep, workload.heads, future)
        return _outcome(run(policy, spec, instance, rng_of(self.name, workload.name, seed)), instance)

    def bound(self, workload: Any, seed: int) -> Bound:
        """The K tiles with the most attention in every row."""
        instance = workload.instance(seed)
        best = _outcome(kept(instance.mass, workload.keep), instance)
        return Bound(best.metrics["recall"], True, best)

    def figures(self, results: Results) -> Sequence[Figure]:
        """Maps of what is read."""
        from .figures import figures

        return figures(results)


def _outcome(masks: np.ndarray, instance: Instance) -> Outcome:
    from .simulator import error, recall

    heads = recall(masks, instance)
    strongest = instance.mass.argmax(axis=2)[..., None]
    metrics = {
        "recall": float(heads.mean()),
        "found": float(np.take_along_axis(masks, strongest, axis=2).mean()),
        "error": error(masks, instance),
        "density": BlockIndex.of(masks, instance.blocks, instance.blocks).density(),
    }
    missed = np.where(masks, 0.0, instance.mass)
    head, row, column = (int(i) for i in np.unravel_index(int(missed.argmax()), missed.shape))
    view = instance.views[head]
    rank = int((view.scores[row] > view.scores[row, column]).sum()) + 1
    feedback = (
        f"recall {metrics['recall']:.3f}, the strongest tile was read in {metrics['found']:.0%} of rows. The largest miss: query tile "
        f"{row} of head {head} pays {missed[head, row, column]:.2f} of its attention to key tile {column}, whose mean scored {rank}. of "
        f"{len(view.scores)}."
    )
    return Outcome(metrics, (), {"mask": masks, "mass": instance.mass.astype(np.float32)}, feedback)
