"""How long a prompt may be: bytes that a prefill needs, by how it is run. A model of memory, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["plain", "chunked", "hybrid", "tensor", "pipeline"]


@dataclass(frozen=True)
class Shape:
    """A model's sizes, and the memory of one GPU.

    Parameters
    ----------
    layers, hidden, intermediate : int
    kv : int
        Values of K and V that one layer stores for one token.
    weight_bytes : float
        Of all weights.
    gpu_bytes : float
        Of one GPU that the engine may use.
    value_bytes : int, default 2
        Of one activation or KV value.
    """

    layers: int
    hidden: int
    intermediate: int
    kv: int
    weight_bytes: float
    gpu_bytes: float
    value_bytes: int = 2

    def token_bytes(self, mode: Mode) -> tuple[float, float]:
        """Return bytes for every token of the prompt, and bytes beside that do not grow with it.

        A prefill holds, for every token, the residual and one layer's norm, Q, K, V and output (``5 hidden`` at most). Plainly run,
        it also holds the MLP's gate and up projections and their product (``3 intermediate``), and the KV of all layers. Chunked, the
        MLP is that of one chunk, but KV of all layers must stay until the last. Hybrid, the whole prompt goes through a layer at once,
        so that one layer's K and V are enough, and the MLP is that of one chunk.
        """
        chunk = 512
        mlp, layer, kv = 3 * self.intermediate, 5 * self.hidden, self.kv * self.layers
        values, fixed = {
            "plain": (mlp + layer + kv, 0),
            "chunked": (kv, (mlp + layer) * chunk),
            "hybrid": (layer + self.kv, mlp * chunk),
            "tensor": ((mlp + kv) / 2 + layer, 0),  # half of the heads and of the MLP on each GPU; the residual on both
            "pipeline": (mlp + layer + kv / 2, 0),  # half of the layers on each
        }[mode]
        return self.value_bytes * values, self.value_bytes * fixed

    def longest(self, mode: Mode) -> int:
        """Return the maximum input length (tokens); 0 if the weights do not fit."""
        each, fixed = self.token_bytes(mode)
        weights = self.weight_bytes / (2 if mode in ("tensor", "pipeline") else 1)
        return max(0, int((self.gpu_bytes - weights - fixed) / each))


SHAPES = {
    "llama8b-l4": Shape(32, 4096, 14_336, 2 * 1024, 16.1e9, 0.9 * 22.5 * 2**30),
    "llama8b-a100": Shape(32, 4096, 14_336, 2 * 1024, 16.1e9, 0.9 * 40 * 2**30),
    "qwen32b-a100": Shape(64, 5120, 27_648, 2 * 1024, 32.8e9, 0.9 * 40 * 2**30),
    "llama70b-h100": Shape(80, 8192, 28_672, 2 * 1024, 70.6e9, 0.9 * 80 * 2**30),
}
