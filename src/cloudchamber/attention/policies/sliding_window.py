"""Neighbours in the order of the tokens."""

from __future__ import annotations

import numpy as np

from cloudchamber.attention.model import Scene, Selection, kept
from cloudchamber.core.policy import Integer, Policy


class SlidingWindow(Policy):
    """Read the nearest key blocks, and the first ``sink`` ones: with a sink it is StreamingLLM's pattern.

    Parameters
    ----------
    sink : int, default 0
        Leading key blocks that every query reads.

    References
    ----------
    Efficient Streaming Language Models with Attention Sinks.
    """

    _constraints = {"sink": Integer(0)}

    def __init__(self, sink: int = 0) -> None:
        self.sink = sink

    def select(self, scene: Scene) -> Selection:
        """By distance between the middles of the blocks, the same for every head."""
        places = [blocks.starts()[0][:-1] + blocks.sizes[0] / 2 for blocks in (scene.q_blocks, scene.k_blocks)]
        near = -np.abs(places[0][:, None] - places[1][None, :])
        near[:, : self.sink] = np.inf
        return Selection(kept(near, scene.keep)[None])


class SinkWindow(SlidingWindow):
    """StreamingLLM: the first block and the nearest ones.

    Parameters
    ----------
    sink : int, default 1
        Leading key blocks that every query reads.
    """

    def __init__(self, sink: int = 1) -> None:
        super().__init__(sink)
