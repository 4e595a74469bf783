"""Feature maps of linear attention: none of their values is negative, so that neither is a weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cloudchamber.core.errors import unknown

Phi = Literal["softmax", "elu", "relu", "hedgehog"]


class Hedgehog(torch.nn.Module):
    """A learned map: softmax over the entries of a projection and their negatives, twice as many features; the projection begins as none.

    Parameters
    ----------
    head_dim : int

    References
    ----------
    The Hedgehog & the Porcupine: Expressive Linear Attentions with Softmax Mimicry.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.projection = torch.nn.Linear(head_dim, head_dim)
        torch.nn.init.eye_(self.projection.weight)
        torch.nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dimension) to (..., 2 x dimension)."""
        x = self.projection(x)
        return torch.softmax(torch.cat([x, -x], dim=-1), dim=-1)


def softmax(x: Tensor) -> Tensor:
    """Over the features: no other constant may be taken off the keys first, for it is not the same in every feature."""
    return torch.softmax(x, dim=-1)


def elu(x: Tensor) -> Tensor:
    """elu(x) + 1."""
    return torch.nn.functional.elu(x) + 1


MAPS: dict[str, Callable[[int], Callable[[Tensor], Tensor]]] = {
    "softmax": lambda head_dim: softmax,
    "elu": lambda head_dim: elu,
    "relu": lambda head_dim: torch.relu,
    "hedgehog": Hedgehog,
}


def feature_map(phi: Phi, head_dim: int) -> Callable[[Tensor], Tensor]:
    """The map of that name, a module where it has parameters.

    Raises
    ------
    UnknownName
        If there is none.
    """
    if phi not in MAPS:
        raise unknown("feature map", phi, MAPS)
    return MAPS[phi](head_dim)
