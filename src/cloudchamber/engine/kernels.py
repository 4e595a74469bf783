"""Linear layers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


class Linear:
    """y = x · weightᵀ + bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)
