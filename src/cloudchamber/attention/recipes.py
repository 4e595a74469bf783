"""How a model whose attention was replaced is tuned: which weights, at which rates, towards what.

The whole model is tuned by default (:func:`parameter_groups`), towards the dense model's predictions (:func:`white_box_loss`); the
corrections alone do not do. The model's own loss needs nothing from here; :func:`layer_loss` compares an attention with its dense output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, scaled_dot_product_attention

from cloudchamber.attention.sparse import SparseAttention
from cloudchamber.core.errors import InputError


def parameter_groups(
    model: torch.nn.Module, *, lr: float = 1e-5, correction_times: float = 10.0, corrections_only: bool = False
) -> list[dict[str, Any]]:
    """Groups for an optimiser, such as ``AdamW(groups, betas=(0.9, 0.999), weight_decay=0.01)``, of what has a gradient.

    Parameters
    ----------
    model : torch.nn.Module
    lr : float, default 1e-5
    correction_times : float, default 10.0
        Rate of the corrections' parameters, which begin at zero, over that of the rest.
    corrections_only : bool, default False
        Tune nothing else.

    Raises
    ------
    InputError
        If there is nothing to train.
    """
    found = (module.correction for module in model.modules() if isinstance(module, SparseAttention))
    own = {id(each) for correction in found if isinstance(correction, torch.nn.Module) for each in correction.parameters()}
    trained = [each for each in model.parameters() if each.requires_grad]
    corrections, rest = [each for each in trained if id(each) in own], [each for each in trained if id(each) not in own]
    groups = [{"params": [] if corrections_only else rest, "lr": lr}, {"params": corrections, "lr": lr * correction_times}]
    groups = [each for each in groups if each["params"]]
    if not groups:
        raise InputError("there is nothing to train; put a correction with parameters into the model first, as convert() does with sla().")
    return groups


def white_box_loss(student: torch.nn.Module, teacher: Callable[..., Tensor], *inputs: Any, **context: Any) -> Tensor:
    """Mean squared distance of the model's prediction from the dense model's on the same inputs, which depends little on the data."""
    with torch.no_grad():
        aim = teacher(*inputs, **context)
    return mse_loss(student(*inputs, **context), aim)


def layer_loss(attention: SparseAttention, q: Tensor, k: Tensor, v: Tensor, **context: Any) -> Tensor:
    """Mean squared distance of one layer's attention from dense attention on the same queries, keys and values."""
    with torch.no_grad():
        aim = scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
    return mse_loss(attention(q, k, v, **context).out, aim)
