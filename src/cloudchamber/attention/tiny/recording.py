"""Queries, keys and values of a real model, and how much of their attention lies in few directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.generators import Tensors
from cloudchamber.attention.sla.ranks import stable_rank

from .dit import TinyVideoDiT


def recorded(model: TinyVideoDiT, clips: Tensor, t: Tensor) -> list[Tensors]:
    """What each layer's attention is given for each clip, layers outermost: ``model.config.layers`` x (batch) of them.

    Parameters
    ----------
    model : TinyVideoDiT
    clips : Tensor, shape (batch, frames, size, size)
        Noisy, as the model takes them.
    t : Tensor, shape (batch,)
    """
    with torch.no_grad(), _watched(model) as seen:
        model(clips, t)
    return [Tensors(*_arrays(q[item], k[item], v[item]), grid) for q, k, v, grid in seen for item in range(len(clips))]


def _arrays(q: Tensor, k: Tensor, v: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return q.numpy(), k.numpy(), v.numpy()


@contextmanager
def _watched(model: TinyVideoDiT) -> Iterator[list[tuple[Any, ...]]]:
    seen: list[tuple[Any, ...]] = []
    before = [vars(attention).get("attend") for attention in model.attentions()]
    for attention in model.attentions():
        inner = attention.attend

        def attend(q: Tensor, k: Tensor, v: Tensor, *, grid: Any, inner: Callable[..., Tensor] = inner, **context: Any) -> Tensor:
            seen.append((q, k, v, grid))
            return inner(q, k, v, grid=grid, **context)

        vars(attention)["attend"] = attend
    try:
        yield seen
    finally:
        for attention, own in zip(model.attentions(), before, strict=True):
            if own is None:
                del vars(attention)["attend"]
            else:  # a converted module's
                vars(attention)["attend"] = own


def split_ranks(tensors: Tensors, share: float = 0.08) -> tuple[np.ndarray, np.ndarray]:
    """Stable rank of each head's largest attention weights, a ``share`` of each row, and of the others: two of shape (heads,)."""
    ranks = np.zeros((2, len(tensors.q)))
    for head, (q, k) in enumerate(zip(tensors.q, tensors.k, strict=True)):
        logits = q @ k.T / np.sqrt(q.shape[1])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        keep = max(1, round(share * weights.shape[1]))
        cut = np.partition(weights, -keep, axis=1)[:, -keep, None]
        ranks[0, head] = stable_rank(np.where(weights >= cut, weights, 0))
        ranks[1, head] = stable_rank(np.where(weights >= cut, 0, weights))
    return ranks[0], ranks[1]
