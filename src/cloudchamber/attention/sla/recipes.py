"""How an SLA model is tuned: which weights, at which rates, towards what.

The whole model is tuned by default (:func:`parameter_groups`) towards the dense model's predictions (:func:`white_box_loss`): the
projections alone do not do. The diffusion loss needs nothing from here; :func:`layer_loss` compares a layer with its own dense output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, scaled_dot_product_attention

from cloudchamber.attention.sparse import SparseAttention
from cloudchamber.core.errors import InputError

from .branch import LinearBranch


def parameter_groups(
    model: torch.nn.Module, *, lr: float = 1e-5, branch_times: float = 10.0, branch_only: bool = False
) -> list[dict[str, Any]]:
    """Groups for an optimiser, such as ``AdamW(groups, betas=(0.9, 0.999), weight_decay=0.01)``.

    Parameters
    ----------
    model : torch.nn.Module
    lr : float, default 1e-5
    branch_times : float, default 10.0
        Rate of the linear branches, which begin at zero, over that of the rest.
    branch_only : bool, default False
        Tune nothing else; the rest of the model gets no gradient from now on.

    Raises
    ------
    InputError
        If the model has no linear branch.
    """
    own = {id(each) for module in model.modules() if isinstance(module, LinearBranch) for each in module.parameters()}
    if not own:
        raise InputError("the model has no linear branch; put SLA into it first: convert(model, lambda: sla(head_dim), pattern).")
    branches = [each for each in model.parameters() if id(each) in own]
    rest = [each for each in model.parameters() if id(each) not in own]
    groups = [{"params": branches, "lr": lr * branch_times}]
    if branch_only:
        for each in rest:
            each.requires_grad_(False)
        return groups
    return [{"params": rest, "lr": lr}, *groups]


def white_box_loss(student: torch.nn.Module, teacher: torch.nn.Module, *inputs: Any, **context: Any) -> Tensor:
    """Mean squared distance of the model's prediction from the dense model's on the same inputs, which depends little on the data."""
    with torch.no_grad():
        aim = teacher(*inputs, **context)
    return mse_loss(student(*inputs, **context), aim)


def layer_loss(attention: SparseAttention, q: Tensor, k: Tensor, v: Tensor, **context: Any) -> Tensor:
    """Mean squared distance of one layer's attention from dense attention on the same queries, keys and values."""
    with torch.no_grad():
        aim = scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
    return mse_loss(attention(q, k, v, **context).out, aim)
