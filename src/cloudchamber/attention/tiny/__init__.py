"""A video diffusion transformer that is trained in half an hour on one processor, to judge sparse attention by what it does to a model.

>>> import torch
>>> from cloudchamber.attention import convert
>>> from cloudchamber.attention.tiny import DiTConfig, TinyVideoDiT
>>> from cloudchamber.attention.vsa import vsa
>>> model = TinyVideoDiT(DiTConfig(width=24, layers=1))
>>> replaced = convert(model, lambda: vsa(24, 2, 12, sparsity=0.5), "blocks.*.attn")
>>> out = model(torch.zeros(1, 8, 16, 16), torch.tensor([0.5]))
>>> replaced[0].last.density
0.5

:func:`train` returns the trained model of a :class:`Recipe`, from the user's cache once it was made; :func:`tune` trains one whose
attention was replaced; :func:`sample` draws clips, and :func:`psnr` and :func:`ssim` compare them.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "dit": ("DiTConfig", "Rotary", "TinyVideoDiT", "VideoAttention"),
    "extending": ("LoRALinear", "add_lora", "extend", "fold_lora", "lora_deltas"),
    "recording": ("recorded", "split_ranks"),
    "sampling": ("gradient_error", "psnr", "sample", "ssim"),
    "shapes": ("MovingShapes", "grid_of", "unscaled"),
    "training": ("Batch", "Recipe", "Stage", "Training", "batch_of", "keep", "load", "train", "validation_loss"),
    "tuning": ("Tuning", "tune"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
