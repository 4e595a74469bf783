"""Each head by its kind: near in time, or the same place through time."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.svg2.model import ClusterView, Kept
from cloudchamber.core.policy import Policy

SPATIAL, TEMPORAL = np.array([1000.0, 1.0, 1.0]), np.array([0.001, 1.0, 1.0])


class ClusterSpatialTemporal(Policy):
    """Read the nearest clusters by frame first, or by place within the frame first: Sparse VideoGen's two kinds of heads.

    Of both patterns as many clusters in a row as the sampled queries need to catch p on average; the head takes the cheaper one.

    References
    ----------
    Sparse VideoGen: Accelerating Video Diffusion Transformers with Spatial-Temporal Sparsity.
    """

    def keep(self, view: ClusterView) -> Kept:
        """By position alone; the samples only say how far, and of which kind the head is."""
        masks = [_nearest(view, weight) for weight in (SPATIAL, TEMPORAL)]
        return Kept(min(masks, key=lambda mask: float(view.sizes_q @ mask @ view.sizes_k)))


def _nearest(view: ClusterView, weight: np.ndarray) -> np.ndarray:
    apart = (np.abs(view.places_q[:, None] - view.places_k[None]) * weight).sum(axis=2)
    order = np.argsort(np.where(view.sizes_k > 0, apart, np.inf), axis=1, kind="stable")
    count = len(view.sizes_k)
    if len(view.sample_row):
        caught = np.cumsum(np.take_along_axis(view.sample_mass, order[view.sample_row], axis=1), axis=1).mean(axis=0)
        count = min(int(np.searchsorted(caught, view.p)) + 1, count)
    mask = np.zeros(order.shape, bool)
    np.put_along_axis(mask, order[:, :count], True, axis=1)
    return mask & (view.sizes_k > 0)
