"""The study ``attention.radial``: how wide a band each distance in frames deserves, at an equal budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .model import BandWidth, RadialSpec, count

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .fields import Field
    from .workloads import RadialWorkload


class RadialStudy(Study):
    """How wide a band of each frame a query of a video reads (``attention.radial``)."""

    name = "attention.radial"
    title = "Radial attention masks"
    systems = ("Radial Attention", "Sliding Tile Attention", "Sparse VideoGen")
    papers = (
        "Radial Attention: O(n log n) Sparse Attention with Energy Decay for Long Video Generation",
        "Fast Video Generation with Sliding Tile Attention",
        "Sparse VideoGen: Accelerating Video Diffusion Transformers with Spatial-Temporal Sparsity",
    )
    protocol = BandWidth
    metrics = (
        Metric("l1_error", "1", high=2.0),
        Metric("worst_head_error", "1", high=2.0),
        Metric("density", "1", high=1.0 + 1e-9),
        Metric("frames_read_share", "1", "max", high=1.0),
    )
    floor = ("TemporalOnly", "SpatialOnly")
    claims = CLAIMS
    sources = ("attention/radial/**/*.py",)
    notes = (
        "l1_error is the distance of attention over the mask from dense attention, averaged over queries and heads; one mask serves all "
        "heads. Every mask has the first frame as a sink.",
        "The budget is what the paper's mask spends. The bound takes pairs by weight, distance by distance, the last in part; no rule "
        "beats it.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in rules."""
        from . import Exponential, Harmonic, Linear, PowerLaw, RadialBlock, RadialPaper, SlidingTile, SpatialOnly, StridedLong, TemporalOnly

        classes = (RadialPaper, RadialBlock, PowerLaw, Exponential, Harmonic, Linear, SlidingTile, StridedLong, SpatialOnly, TemporalOnly)
        return {cls.__name__: cls for cls in classes}

    def workloads(self) -> Mapping[str, RadialWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def adjusted(self, workload: Any, **params: Any) -> RadialWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Ask for every band, and hold it against the seed's field."""
        from .simulator import run

        widths = run(policy, workload.spec, rng_of(self.name, workload.name, seed))
        return _outcome(widths, workload.field(seed), workload.spec)

    def bound(self, workload: Any, seed: int) -> Bound:
        """The relaxation in which pairs are taken by weight."""
        from .optimum import least_error

        return Bound(least_error(workload.field(seed), workload.spec), False)

    def figures(self, results: Results) -> Sequence[Figure]:
        """Bands over distance."""
        from .figures import figures

        return figures(results)


def _outcome(widths: np.ndarray, field: Field, spec: RadialSpec) -> Outcome:
    from .simulator import l1_error

    f, s = spec.frames, spec.tokens
    heads = l1_error(widths, field)
    metrics = {
        "l1_error": float(heads.mean()),
        "worst_head_error": float(heads.max()),
        "density": count(widths, f, s, sink=spec.sink) / (f * s) ** 2,
        "frames_read_share": float((widths > 0).mean()),
    }
    frames, tokens, _ = field.parts(sink_read=spec.sink)
    upto = np.concatenate([np.zeros((len(tokens), 1)), np.cumsum(tokens, axis=1)], axis=1)
    missed = (frames * (upto[:, -1:] - upto[:, widths])).mean(axis=0) / (f * s)
    worst = int(missed.argmax())
    feedback = (
        f"L1 error {heads.mean():.4f} at density {metrics['density']:.3f}; worst: head {int(heads.argmax())}, {heads.max():.4f}. Most is "
        f"missed at {worst} frames apart, where the band is {widths[worst]} of {s} tokens wide: {missed[worst]:.4f} of all weight."
    )
    return Outcome(metrics, (), {"width": widths, "missed": missed}, feedback)
