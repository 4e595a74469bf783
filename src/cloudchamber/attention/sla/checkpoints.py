"""Weights of SLA models: loaded without losing any, merged onto other checkpoints, and looked at for what is untrained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from cloudchamber.attention.sparse import SparseAttention
from cloudchamber.core.errors import InputError

from .branch import LinearBranch


def load(model: torch.nn.Module, state: Mapping[str, Tensor], *, from_dense: bool = False) -> None:
    """Load a state dict, every key of it.

    Parameters
    ----------
    model : torch.nn.Module
    state : mapping of str to Tensor
    from_dense : bool, default False
        The state is of the dense model: what corrections add, linear branches or VSA's gates, may be missing, and stays as it is.

    Raises
    ------
    InputError
        If the state has keys that the model lacks, such as the projections of SLA where the model is dense: they would be dropped without
        a word. Or if it lacks others.
    """
    own = set(model.state_dict())
    added = {f"{name}.{key}" if name else key for name, each in _corrections(model) for key in each.state_dict()}
    extra, missing = sorted(set(state) - own), sorted(own - set(state) - (added if from_dense else set()))
    if extra:
        raise InputError(
            f"the model has no place for {len(extra)} keys of the checkpoint, {_some(extra)}; if it was saved with SLA, put SLA into the "
            "model first (convert), as it was saved."
        )
    if missing:
        hint = "; if it is of the dense model, say from_dense=True" if set(missing) <= added else ""
        raise InputError(f"the checkpoint lacks {len(missing)} keys of the model, {_some(missing)}{hint}.")
    model.load_state_dict(dict(state), strict=False)


def merge_delta(
    base: Mapping[str, Tensor], diff_base: Mapping[str, Tensor], diff_target: Mapping[str, Tensor], w: float = 1.0
) -> dict[str, Tensor]:
    """Add what a fine-tune changed to another checkpoint: base + w (diff_target - diff_base).

    Keys that only the target has, such as the projections of SLA, come as they are: without them a merged model has no linear branch.

    Parameters
    ----------
    base : mapping of str to Tensor
        What is to be changed, such as a distilled model.
    diff_base, diff_target : mapping of str to Tensor
        The model before and after the fine-tune.
    w : float, default 1.0

    Raises
    ------
    InputError
        If the base lacks a key that was tuned, the target one that its own base has, or shapes differ.

    Examples
    --------
    >>> one = torch.ones(2)
    >>> merge_delta({"a": 5 * one}, {"a": one}, {"a": 3 * one, "projection": one}, w=0.5)
    {'a': tensor([6., 6.]), 'projection': tensor([1., 1.])}
    """
    for name, lacking in (("diff_target", set(diff_base) - set(diff_target)), ("base", set(diff_base) - set(base))):
        if lacking:
            raise InputError(f"{name} lacks {len(lacking)} keys of diff_base, {_some(sorted(lacking))}; the three must be of one model.")
    merged = dict(base)
    for key, after in diff_target.items():
        before, old = diff_base.get(key), base.get(key)
        if before is None or old is None:
            if old is not None:
                raise InputError(f"{key} is in base and diff_target but not in diff_base, so what was changed is not known.")
            merged[key] = after.clone()
        elif not old.shape == before.shape == after.shape:
            raise InputError(
                f"{key} has the shapes {tuple(old.shape)}, {tuple(before.shape)} and {tuple(after.shape)}; they must be equal."
            )
        elif old.is_floating_point():
            kind = torch.promote_types(old.dtype, torch.float32)
            merged[key] = (old.to(kind) + w * (after.to(kind) - before.to(kind))).to(old.dtype)
        elif not torch.equal(before, after):
            merged[key] = after.clone()
    return merged


def warn_if_untrained(model: torch.nn.Module) -> list[str]:
    """Names of the linear branches that have no effect, since their projection is still zero; warns if there are any.

    "The linear attention does not work" most often is this: the output equals that of sparse attention alone until the model was trained.
    """
    names = [name or type(branch).__name__ for name, branch in _branches(model) if branch.is_untrained]
    if names:
        warnings.warn(
            f"{len(names)} linear branches have no effect, {_some(names)}: their projection is zero until the model is trained with them, "
            "so the output is that of sparse attention alone.",
            stacklevel=2,
        )
    return names


def _corrections(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """What corrects a sparse attention, or may."""
    owners = {id(each.correction) for each in model.modules() if isinstance(each, SparseAttention)}
    return [(name, each) for name, each in model.named_modules() if id(each) in owners or isinstance(each, LinearBranch)]


def _branches(model: torch.nn.Module) -> list[tuple[str, LinearBranch]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LinearBranch)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
