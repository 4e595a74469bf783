"""Exact softmax attention over the keys that an index names: one function in front of every backend, and the law by which states merge."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cloudchamber.attention.kernels import gather
from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.attention.model import BlockIndex, scale_of
from cloudchamber.core.errors import InputError, MissingExtra, unknown

BACKENDS = ("auto", "dense", "gather", "native", "decode", "flex", "triton")
FEW_QUERIES = 32  # below, packing every key for the native kernel costs more than the products do


@dataclass(frozen=True)
class Kernel:
    """A backend: what it computes, and how gradients come back; without ``backward`` it has none."""

    name: str
    forward: Callable[[Tensor, Tensor, Tensor, Plan, float], tuple[Tensor, Tensor]]
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]] | None
    takes_half: bool = False
    reads_little: bool = False
    forward_with_mass: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None


class _Attend(torch.autograd.Function):
    """A kernel in torch's graph. Saved are q, k, v, the output, its log-sum-exp and the index; never a probability."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
        out, lse = kernel.forward(q, k, v, plan, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.scale, ctx.kernel = plan, scale, kernel
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        delta = (out * d_out).sum(-1, dtype=lse.dtype) - d_lse
        return *ctx.kernel.backward(q, k, v, lse, d_out.contiguous(), delta, ctx.plan, ctx.scale), None, None, None


@cache
def _kernel(name: str) -> Kernel:
    """The backend of that name, imported when it is first asked for."""
    if name == "native":
        from cloudchamber.attention.kernels import native

        if not native.available():
            return _kernel("gather")
    try:
        module = importlib.import_module(f"cloudchamber.attention.kernels.{name}")
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the {name} kernel needs {error.name}", "triton" if name == "triton" else "attention") from None
    return Kernel(
        name,
        module.forward,
        getattr(module, "backward", None),
        takes_half=getattr(module, "TAKES_HALF", False),
        reads_little=getattr(module, "READS_LITTLE", False),
        forward_with_mass=getattr(module, "forward_with_mass", None),
    )


def _installed(name: str) -> bool:
    try:
        _kernel(name)
    except MissingExtra:
        return False
    return True


def choose(q: Tensor, needs_grad: bool) -> str:
    """The backend that ``"auto"`` stands for: by device, precision, and whether it is a step of decoding."""
    if q.is_cuda:
        return "triton" if q.dtype != torch.float64 and _installed("triton") else "gather"
    if q.device.type != "cpu" or q.dtype == torch.float64:
        return "gather"
    if q.shape[2] == 1 and not needs_grad and _installed("decode"):
        return "decode"
    return _kernel("native" if q.shape[2] >= FEW_QUERIES else "gather").name


@overload
def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: BlockIndex,
    *,
    scale: float | None = ...,
    backend: str = ...,
    on_empty: str = ...,
    mass: Literal[False] = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: BlockIndex,
    *,
    scale: float | None = ...,
    backend: str = ...,
    on_empty: str = ...,
    mass: Literal[True],
) -> tuple[Tensor, Tensor, Tensor]: ...
def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: BlockIndex,
    *,
    scale: float | None = None,
    backend: str = "auto",
    on_empty: str = "raise",
    mass: bool = False,
) -> tuple[Tensor, ...]:
    """Attention in which query block i reads only the key blocks that ``index`` names for it.

    lse_i = log sum_j exp(s q_i . k_j + log w_j) and o_i = sum_j exp(s q_i . k_j + log w_j - lse_i) v_j over the named keys. Exact, with
    exact gradients of q, k and v; the choice of keys has none. Half precision is accumulated in float32.

    Parameters
    ----------
    q, k, v : Tensor, shape (batch, heads, tokens, dimension)
        As in ``scaled_dot_product_attention``; fewer key heads than query heads are shared by groups, and lengths may differ.
    index : BlockIndex
        Of 1 head, or of one for each head of each sequence, a sequence's heads one after another. Tokens lie in the order of its blocks.
    scale : float, optional
        s; by default 1 / sqrt(dimension).
    backend : {"auto", "dense", "gather", "native", "decode", "flex", "triton"}
        ``decode`` takes one query a head and ``flex`` uniform blocks; neither has gradients.
    on_empty : {"raise", "zero"}
        A query that reads nothing: an error, or output 0 with lse -inf and no gradient.
    mass : bool
        Also return the probability that each key receives from all queries, shape (batch, heads, keys), without gradient.

    Returns
    -------
    out : Tensor, shape (batch, heads, queries, dimension of v)
    lse : Tensor of float32, shape (batch, heads, queries)
        float64 where the input is.

    Raises
    ------
    InputError
        If shapes or index do not fit, or q or a key that is read is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from cloudchamber.attention.model import Blocks
    >>> x = torch.ones(1, 1, 4, 2)
    >>> index = BlockIndex.of(np.eye(2, dtype=bool)[None], Blocks.uniform(4, 2), Blocks.uniform(4, 2))
    >>> sparse_attention(x, x, x, index)[0].shape
    torch.Size([1, 1, 4, 2])
    """
    if on_empty not in ("raise", "zero"):
        raise InputError(f'on_empty must be "raise" or "zero", got {on_empty!r}.')
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    _check_shapes(q, k, v)
    index.validate(q.shape[0] * q.shape[1], q.shape[2], k.shape[2], may_be_empty=on_empty == "zero")
    needs_grad = torch.is_grad_enabled() and any(each.requires_grad for each in (q, k, v))
    kernel = _kernel(choose(q, needs_grad) if backend == "auto" else backend)
    if needs_grad and kernel.backward is None and kernel.name != "dense":
        raise InputError(f"the {kernel.name} kernel has no gradients; use backend='native' or 'gather', or torch.no_grad().")
    found = _run(kernel, q, k, v, Plan.of(index), scale_of(q.shape[3]) if scale is None else float(scale), mass)
    return tuple(each.reshape(*q.shape[:2], *each.shape[1:]) for each in found)


def _run(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float, mass: bool) -> list[Tensor]:
    """Output, log-sum-exp and, if asked for, mass, heads of all sequences one after another."""
    kind = q.dtype if kernel.takes_half else torch.promote_types(q.dtype, torch.float32)
    flat_q, flat_k, flat_v = (each.to(kind).flatten(0, 1) for each in (q, k, v))
    if not kernel.reads_little:  # which checks what it reads: to look at a whole cache would cost more than the answer
        flat_q, flat_k, flat_v = flat_q.contiguous(), flat_k.contiguous(), flat_v.contiguous()
        _check_finite("q", flat_q)
        _check_finite("k", flat_k)
    if mass and kernel.forward_with_mass is not None:
        out, lse, seen = kernel.forward_with_mass(flat_q, flat_k, flat_v, plan, scale)
        return [out.to(q.dtype), lse, seen]
    if kernel.backward is None:
        out, lse = kernel.forward(flat_q, flat_k, flat_v, plan, scale)
    else:
        out, lse = _Attend.apply(flat_q, flat_k, flat_v, plan, scale, kernel)  # type: ignore[no-untyped-call]
    found = [out.to(q.dtype), lse]
    if mass:
        with torch.no_grad():
            wide = torch.promote_types(kind, torch.float32)
            found.append(gather.key_mass(flat_q.to(wide), flat_k.to(wide), lse.detach(), plan, scale))
    return found


def _check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim == 4:
        raise InputError(f"q, k and v must be of shape (batch, heads, tokens, dimension), got {shapes}.")
    if not (q.dtype == k.dtype == v.dtype and q.is_floating_point() and q.device == k.device == v.device):
        kinds = ", ".join(f"{name} {each.dtype} on {each.device}" for name, each in zip("qkv", (q, k, v), strict=True))
        raise InputError(f"q, k and v must be floating-point tensors of one type on one device, got {kinds}.")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0]:
        raise InputError(f"k and v must have the same heads and tokens, and all the same batch, got {shapes}.")
    if q.shape[3] != k.shape[3] or q.shape[3] < 1:
        raise InputError(f"q and k must have the same dimension, of at least 1, got {shapes}.")
    if k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        raise InputError(f"query heads must be a multiple of key heads, got {q.shape[1]} and {k.shape[1]}: {shapes}.")


def _check_finite(name: str, x: Tensor) -> None:
    if x.numel():
        low, high = torch.aminmax(x.detach())  # NaN wins over every number, so two numbers tell
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"{name} holds NaN or infinity, shape {tuple(x.shape)} with sequences' heads in one axis.")


def merge(states: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The state (out, lse) of the union of disjoint key sets, from the state of each.

    lse = log sum_s exp(lse_s) and out = sum_s exp(lse_s - lse) out_s: text and video, sink and window, shards of a cache.

    Examples
    --------
    >>> one = torch.ones(1, 1, 1, 2)
    >>> merge([(one, torch.zeros(1, 1, 1)), (3 * one, torch.zeros(1, 1, 1))])[0]
    tensor([[[[2., 2.]]]])
    """
    if not states:
        raise InputError("merge needs at least one state, got none.")
    shapes = [(tuple(out.shape), tuple(lse.shape)) for out, lse in states]
    if any(each != shapes[0] or each[0][:-1] != each[1] for each in shapes):
        raise InputError(f"states must be of one shape, (..., dimension) and (...), got {shapes}.")
    outs, parts = torch.stack([out for out, _ in states]), torch.stack([lse for _, lse in states])
    empty = torch.isneginf(parts).all(0)
    safe = torch.where(empty, torch.zeros_like(parts), parts)  # exp(-inf + inf) is not a number
    lse = torch.logsumexp(safe, 0)
    share = torch.exp(safe - lse).masked_fill(empty, 0.0).to(outs.dtype)
    return (share[..., None] * outs).sum(0), lse.masked_fill(empty, -torch.inf)
