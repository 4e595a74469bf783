"""Attention that decays: exact fields, in which a band's share of the weight is a product of sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudchamber.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Field:
    """Attention of some heads of a video.

    The weight of key (j, l) for query (i, k) is (1 - sink) · frame[i, j] · space[|k - l|] / Z, and sink / s more in the first frame.

    Parameters
    ----------
    frame : ndarray, shape (heads, frames, frames)
    space : ndarray, shape (heads, tokens)
        By distance within the frame.
    sink : ndarray, shape (heads,)
        Weight that every query pays to the first frame on top, evenly.
    """

    frame: np.ndarray
    space: np.ndarray
    sink: np.ndarray

    def parts(self, *, sink_read: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weight on frames by distance, (heads, f), and on tokens by distance, (heads, s), both summed over queries; weight read anyway.

        The weight of all pairs at distance (d, m) is the product of the first two; queries sum to f · s.

        Raises
        ------
        InputError
            If the first frame is a sink and not read whole: what a band catches of it is not a product.
        """
        if self.sink.any() and not sink_read:
            raise InputError("a field with a sink needs sink_read=True.")
        heads, f, s = len(self.frame), self.frame.shape[1], self.space.shape[1]
        share = self.frame / self.frame.sum(axis=2, keepdims=True) * (1 - self.sink[:, None, None])
        always = np.zeros(heads)
        if sink_read:
            always = share[:, :, 0].sum(axis=1) * s + self.sink * f * s
            share = share.copy()
            share[:, :, 0] = 0.0
        apart = np.abs(np.subtract.outer(np.arange(f), np.arange(f)))
        frames = np.stack([[share[h][apart == d].sum() for d in range(f)] for h in range(heads)])
        near = np.abs(np.subtract.outer(np.arange(s), np.arange(s)))
        tokens = np.zeros((heads, s))
        for h in range(heads):
            weights = self.space[h][near]
            weights = weights / weights.sum(axis=1, keepdims=True)
            tokens[h] = np.bincount(near.ravel(), weights.ravel(), minlength=s)
        return frames, tokens, always

    def recall(self, widths: np.ndarray, *, sink_read: bool = True) -> np.ndarray:
        """Share of the weight that bands of these widths read, averaged over queries: (heads,)."""
        frames, tokens, always = self.parts(sink_read=sink_read)
        upto = np.concatenate([np.zeros((len(tokens), 1)), np.cumsum(tokens, axis=1)], axis=1)
        total = frames.shape[1] * tokens.shape[1]
        return np.asarray((np.einsum("hd,hd->h", frames, upto[:, widths]) + always) / total)


def decay_field(f: int, s: int, alpha: np.ndarray, beta: np.ndarray, sink: np.ndarray) -> Field:
    """exp(-alpha · frames apart - beta · tokens apart), a head for each pair of rates."""
    apart = np.abs(np.subtract.outer(np.arange(f), np.arange(f)))
    frame = np.exp(-alpha[:, None, None] * apart)
    return Field(frame, np.exp(-beta[:, None] * np.arange(s)), sink)


def scene_cut_field(f: int, s: int, alpha: np.ndarray, beta: np.ndarray, sink: np.ndarray, cuts: tuple[int, int]) -> Field:
    """Scene A, scene B, scene A again: across a cut there is hardly any attention, and the third scene looks back past the second."""
    scene = np.digitize(np.arange(f), cuts)
    story = np.where(scene == 2, np.arange(f) - (cuts[1] - cuts[0]), np.arange(f))
    apart = np.abs(np.subtract.outer(story, story))
    same = np.not_equal.outer(scene == 1, scene == 1)
    frame = np.exp(-alpha[:, None, None] * apart) * np.where(same, 0.02, 1.0)
    return Field(frame, np.exp(-beta[:, None] * np.arange(s)), sink)
