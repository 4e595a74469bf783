"""A small video diffusion transformer: a real one in every part, trained in minutes on one processor."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from cloudchamber.attention.model import Grid
from cloudchamber.core.errors import InputError

from .shapes import grid_of

Positions = Literal["extrapolate", "interpolate", "ntk"]


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a model.

    Parameters
    ----------
    patch : tuple of int, default (1, 2, 2)
        Frames, rows and columns of a token.
    width, layers, heads : int
    mlp : int, default 4
        Width of the hidden layer, in widths.

    Raises
    ------
    InputError
        If heads do not divide the width into heads with an even number of dimensions for each of three axes.
    """

    patch: tuple[int, int, int] = (1, 2, 2)
    width: int = 96
    layers: int = 3
    heads: int = 2
    mlp: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 6:
            raise InputError(f"width / heads must be a multiple of 6 (three axes of pairs), got {self.width} / {self.heads}.")

    @property
    def head_dim(self) -> int:
        """Dimensions of a head."""
        return self.width // self.heads


class Rotary:
    """Rotary positions along frames, rows and columns, a third of a head's dimensions each.

    Parameters
    ----------
    head_dim : int
    trained_frames : int or None
        Frames that the model was trained on; longer clips are treated as ``positions`` says.
    positions : {"extrapolate", "interpolate", "ntk"}
        Go on counting; squeeze the frames into the trained length; or stretch only the slow frequencies, by a larger base.
    """

    def __init__(self, head_dim: int, trained_frames: int | None = None, positions: Positions = "extrapolate") -> None:
        self.pairs, self.trained_frames, self.positions = head_dim // 6, trained_frames, positions
        self._cached: dict[Grid, tuple[Tensor, Tensor]] = {}

    def angles(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (tokens, head_dim / 2)."""
        if grid not in self._cached:
            self._cached[grid] = self._angles(grid)
        return self._cached[grid]

    def _angles(self, grid: Grid) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False):  # what is made there could not be trained with later
            at = torch.as_tensor(grid.positions(), dtype=torch.float32)
            longer = max(1.0, grid.frames / self.trained_frames) if self.trained_frames else 1.0
            found = []
            for axis in range(3):
                stretch = longer if axis == 0 else 1.0
                base = 100.0 * (stretch ** (self.pairs / max(self.pairs - 1, 1)) if self.positions == "ntk" else 1.0)
                speed = base ** -(torch.arange(self.pairs) / self.pairs)
                place = at[:, axis] / (stretch if self.positions == "interpolate" else 1.0)
                found.append(place[:, None] * speed)
            angle = torch.cat(found, 1)
            return angle.cos(), angle.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of dimensions by its angle; x is (batch, heads, tokens, dimension)."""
    first, second = x.chunk(2, -1)
    cos, sin = cos.to(x), sin.to(x)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class VideoAttention(torch.nn.Module):
    """Attention of all tokens of a clip with qk-norm and rotary positions; ``attend`` is what :func:`convert` replaces."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = torch.nn.Linear(config.width, 3 * config.width)
        self.out = torch.nn.Linear(config.width, config.width)
        self.q_norm = torch.nn.RMSNorm(config.head_dim)
        self.k_norm = torch.nn.RMSNorm(config.head_dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **context: Any) -> Tensor:
        """Dense attention."""
        return functional.scaled_dot_product_attention(q, k, v)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], grid: Grid) -> Tensor:
        """Return what each token reads, (batch, tokens, width)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (rotated(norm(each), *angles).to(v.dtype) for norm, each in ((self.q_norm, q), (self.k_norm, k)))
        read: Tensor = self.out(self.attend(q, k, v, grid=grid, x=x).transpose(1, 2).reshape(batch, tokens, width))
        return read


class DiTBlock(torch.nn.Module):
    """Attention and a feed-forward layer, each shifted, scaled and gated by the time (adaLN-zero)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attn = VideoAttention(config)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(width, config.mlp * width), torch.nn.GELU("tanh"), torch.nn.Linear(config.mlp * width, width)
        )
        self.modulation = torch.nn.Linear(width, 6 * width)
        torch.nn.init.zeros_(self.modulation.weight)
        torch.nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, time: Tensor, angles: tuple[Tensor, Tensor], grid: Grid) -> Tensor:
        """Return the tokens, (batch, tokens, width)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(time)[:, None].chunk(6, -1)
        x = x + gate_a * self.attn(self.norms[0](x) * (1 + scale_a) + shift_a, angles, grid)
        made: Tensor = x + gate_m * self.mlp(self.norms[1](x) * (1 + scale_m) + shift_m)
        return made


class TinyVideoDiT(torch.nn.Module):
    """Predicts the velocity from clip to noise (flow matching): x_t = (1 - t) clip + t noise, velocity = noise - clip.

    Parameters
    ----------
    config : DiTConfig, optional
    trained_frames : int, optional
        Frames after which positions are treated as ``positions`` says; see :class:`Rotary`.
    positions : {"extrapolate", "interpolate", "ntk"}

    Examples
    --------
    >>> model = TinyVideoDiT(DiTConfig(width=24, layers=1))
    >>> model(torch.zeros(2, 4, 8, 8), torch.tensor([0.1, 0.9])).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, config: DiTConfig | None = None, *, trained_frames: int | None = None, positions: Positions = "extrapolate") -> None:
        super().__init__()
        self.config = config = config or DiTConfig()
        width, values = config.width, math.prod(config.patch)
        self.embed = torch.nn.Linear(values, width)
        self.time = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.SiLU(), torch.nn.Linear(width, width), torch.nn.SiLU())
        self.blocks = torch.nn.ModuleList(DiTBlock(config) for _ in range(config.layers))
        self.norm = torch.nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = torch.nn.Linear(width, 2 * width)
        self.head = torch.nn.Linear(width, values)
        for layer in (self.modulation, self.head):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        self.rotary = Rotary(config.head_dim, trained_frames, positions)

    def forward(self, clips: Tensor, t: Tensor) -> Tensor:
        """Return the velocity.

        Parameters
        ----------
        clips : Tensor, shape (batch, frames, size, size)
        t : Tensor, shape (batch,)
            In [0, 1]; 1 is noise.
        """
        grid = grid_of(clips.shape[1], clips.shape[2], self.config.patch)
        x = self.embed(_patches(clips, grid, self.config.patch))
        time, angles = self.time(_waves(t).to(x.dtype)), self.rotary.angles(grid)
        for block in self.blocks:
            x = block(x, time, angles, grid)
        shift, scale = self.modulation(time)[:, None].chunk(2, -1)
        return _frames(self.head(self.norm(x) * (1 + scale) + shift), grid, self.config.patch)

    def attentions(self) -> list[VideoAttention]:
        """Attention of each layer, the first first."""
        return [block.attn for block in cast("list[DiTBlock]", list(self.blocks))]

    def flops(self, tokens: int, density: float = 1.0) -> float:
        """Floating-point operations of a forward pass of one clip whose attention reads this share of all pairs."""
        c = self.config
        linear = 2.0 * tokens * c.layers * (4 + 2 * c.mlp) * c.width**2
        return linear + 4.0 * c.layers * density * tokens**2 * c.width

    def described(self) -> dict[str, Any]:
        """What :func:`TinyVideoDiT` needs to be made again."""
        return {"config": asdict(self.config), "trained_frames": self.rotary.trained_frames, "positions": self.rotary.positions}


def _waves(t: Tensor) -> Tensor:
    """Sines and cosines of the time, (batch, 64)."""
    speed = torch.exp(torch.linspace(0.0, math.log(1000.0), 32, device=t.device))
    angle = t[:, None] * speed
    return torch.cat([angle.sin(), angle.cos()], 1)


def _patches(clips: Tensor, grid: Grid, patch: tuple[int, int, int]) -> Tensor:
    """Clips as tokens, (batch, tokens, values of a patch)."""
    batch = len(clips)
    cut = clips.view(batch, grid.frames, patch[0], grid.height, patch[1], grid.width, patch[2])
    return cut.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, grid.tokens, -1)


def _frames(tokens: Tensor, grid: Grid, patch: tuple[int, int, int]) -> Tensor:
    """Tokens as clips again."""
    batch = len(tokens)
    cut = tokens.view(batch, grid.frames, grid.height, grid.width, *patch)
    return cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, grid.frames * patch[0], grid.height * patch[1], grid.width * patch[2])
