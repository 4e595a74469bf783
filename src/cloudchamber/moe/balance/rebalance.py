"""A drop-in for the EPLB of serving engines: the signature and results of vLLM's ``rebalance_experts``."""

from __future__ import annotations

from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError

from .model import BalancePolicy, ClusterSpec, Plan


def rebalance_experts(
    weight: Any, replicas: int, groups: int, nodes: int, gpus: int, *, policy: BalancePolicy | None = None, prev: Any = None
) -> tuple[Any, Any, Any]:
    """Return the slots' experts, the experts' slots, and the replicas of each expert.

    Parameters
    ----------
    weight : array or torch tensor of shape (layers, experts)
        Load of every expert.
    replicas, groups, nodes, gpus : int
        Slots of each layer, expert groups, nodes, devices.
    policy : BalancePolicy, default ``LPTHeap()``
        LPTHeap gives the reference's own plan, sooner. It is reset before use.
    prev : array or torch tensor of shape (layers, replicas), optional
        The slots' experts now, for policies that change them a little.

    Returns
    -------
    phy2log : shape (layers, replicas)
    log2phy : shape (layers, experts, most replicas), padded with -1
    count : shape (layers, experts)
        NumPy arrays, or tensors where ``weight`` is one.

    Raises
    ------
    InputError
        If the numbers do not fit each other, the load is not finite and at least 0, or the policy's plan is not valid.

    Examples
    --------
    >>> phy2log, log2phy, count = rebalance_experts([[90, 70, 20, 30]], 6, 1, 1, 2)
    >>> phy2log.tolist(), count.tolist()
    ([[0, 1, 3, 0, 1, 2]], [[2, 2, 1, 1]])
    """
    from .policies.lpt_heap import LPTHeap

    is_tensor = hasattr(weight, "detach")
    load = np.asarray(weight.detach().cpu().double() if is_tensor else weight, dtype=np.float64)
    if load.ndim != 2:
        raise InputError(f"weight must have the shape (layers, experts), got {load.shape}.")
    spec = ClusterSpec(load.shape[0], load.shape[1], replicas, gpus, nodes, groups)
    policy = LPTHeap() if policy is None else policy
    policy.reset(spec, np.random.default_rng(0))
    before = None
    if prev is not None:
        before = Plan(np.array(prev.detach().cpu() if hasattr(prev, "detach") else prev, dtype=np.int64))
        before.check(spec)
    plan = policy.plan(spec.checked(load), before)
    plan.check(spec)
    found = (np.array(plan.phy2log), plan.log2phy(spec.experts), plan.count(spec.experts))
    if not is_tensor:
        return found
    import torch

    phy2log, log2phy, count = (torch.from_numpy(each).to(weight.device) for each in found)
    return phy2log, log2phy, count
