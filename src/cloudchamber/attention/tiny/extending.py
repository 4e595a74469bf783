"""Make a video model longer: low-rank changes of its attention's matrices, trained at the new length with a sparse mask on."""

from __future__ import annotations

import copy
import fnmatch
import math

import torch
from torch import Tensor

from cloudchamber.attention.converting import MARK
from cloudchamber.core.errors import InputError

from .dit import Positions, TinyVideoDiT


class LoRALinear(torch.nn.Module):
    """A linear layer that stays as it is, and a change of low rank that is trained: W x + B A x.

    Parameters
    ----------
    inner : torch.nn.Linear
        Frozen.
    rank : int
    """

    def __init__(self, inner: torch.nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        like = inner.weight
        self.down = torch.nn.Parameter(torch.randn(rank, inner.in_features).to(like) / math.sqrt(inner.in_features))
        self.up = torch.nn.Parameter(torch.zeros(inner.out_features, rank).to(like))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        made: Tensor = self.inner(x) + (x @ self.down.T) @ self.up.T
        return made

    def delta(self) -> Tensor:
        """What is added to the weight."""
        return self.up @ self.down


def add_lora(model: torch.nn.Module, pattern: str = "blocks.*.attn.*", rank: int = 16) -> list[str]:
    """Freeze a model, and give each linear layer whose name matches a low-rank change; returns the names.

    Corrections of a converted model are left as they are, and trained.

    Raises
    ------
    InputError
        If no linear layer matches, or the rank is not positive.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and MARK not in name]
    found = fnmatch.filter(linear, pattern)
    if not found or rank < 1:
        raise InputError(f"LoRA needs a rank of at least 1 and linear layers, got rank {rank}, and {len(found)} layers match {pattern!r}.")
    for name, parameter in model.named_parameters():
        if MARK not in name:
            parameter.requires_grad_(False)
    for name in found:
        _put(model, name, LoRALinear(model.get_submodule(name), rank))  # type: ignore[arg-type]
    return found


def lora_deltas(model: torch.nn.Module) -> dict[str, Tensor]:
    """The change of each weight, by its name in the model without LoRA: to be stored, scaled, or added to those of another LoRA."""
    return {f"{name}.weight": each.delta().detach() for name, each in model.named_modules() if isinstance(each, LoRALinear)}


def fold_lora(model: torch.nn.Module, weight: float = 1.0) -> int:
    """Add each change to its weight, and put the plain layer back; returns how many it were."""
    found = [(name, each) for name, each in model.named_modules() if isinstance(each, LoRALinear)]
    for name, each in found:
        with torch.no_grad():
            each.inner.weight += weight * each.delta()
        _put(model, name, each.inner)
    if found:
        model.requires_grad_(True)
    return len(found)


def extend(model: TinyVideoDiT, trained_frames: int, *, rank: int = 16, positions: Positions = "interpolate") -> TinyVideoDiT:
    """A copy for longer clips, ready to be tuned: with LoRA on its attention, and positions beyond the trained length.

    Put the mask on with :func:`cloudchamber.attention.convert`, and train with :func:`tune`; only the changes are trained.

    Parameters
    ----------
    model : TinyVideoDiT
    trained_frames : int
        Frames (of tokens) that it was trained on.
    rank : int
    positions : {"extrapolate", "interpolate", "ntk"}

    Examples
    --------
    >>> from cloudchamber.attention.tiny import DiTConfig
    >>> longer = extend(TinyVideoDiT(DiTConfig(width=24, layers=1)), 8, rank=2)
    >>> fold_lora(longer)
    2
    """
    if trained_frames < 1:
        raise InputError(f"a model was trained on at least 1 frame, got {trained_frames}.")
    longer = TinyVideoDiT(model.config, trained_frames=trained_frames, positions=positions)
    longer.load_state_dict(copy.deepcopy(model.state_dict()))
    add_lora(longer, rank=rank)
    return longer


def _put(model: torch.nn.Module, name: str, module: torch.nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
