"""Put sparse attention into a model that is already there, and take it out again."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cloudchamber.attention.layouts import Carry
from cloudchamber.attention.sparse import AttentionResult, SparseAttention
from cloudchamber.core.errors import InputError

_ACTIVE: ContextVar[Converted | None] = ContextVar("sparse attention that takes the place of dense", default=None)
MARK, HOOK = "_sparse_attention", "_sparse_attention_hook"


@dataclass
class Converted:
    """A module whose attention was replaced.

    Parameters
    ----------
    name : str
        In the model.
    module : torch.nn.Module
    attention : SparseAttention
    context : dict
        Passed with each call, such as ``{"grid": grid}``; replace its entries at will.
    last : AttentionResult or None
        Of the last call: what it read and cost, without a graph.
    skipped : int
        Calls that were left dense, because they had a mask, were causal, or used dropout.
    carry : Carry or None
        Passed to the next call.
    """

    name: str
    module: torch.nn.Module
    attention: SparseAttention
    context: dict[str, Any]
    last: AttentionResult | None = None
    skipped: int = 0
    carry: Carry | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **context: Any) -> Tensor:
        """Sparse attention; the carry of the last call is passed on."""
        result: AttentionResult = self.attention(q, k, v, **{"carry": self.carry, **self.context, **context})
        self.carry = result.carry
        self.last = replace(result, out=result.out.detach(), lse=result.lse.detach())
        return result.out

    def forget(self) -> None:
        """Drop the carry: what comes next is another clip, and must not depend on this one."""
        self.carry = None


def convert(model: torch.nn.Module, spec: Callable[[], SparseAttention], pattern: str, **context: Any) -> list[Converted]:
    """Replace the attention of the modules whose names match.

    A module with a method ``attend(q, k, v, **context)`` has that replaced. In any other, ``torch.nn.MultiheadAttention`` among them, each
    ``scaled_dot_product_attention`` that its forward calls is; calls with a mask, causal ones and ones with dropout stay dense and
    are counted. Parameters stay where they are; those of a correction join the module, so they are trained and saved with it.

    Parameters
    ----------
    model : torch.nn.Module
    spec : callable
        Makes the :class:`SparseAttention` of one module.
    pattern : str
        Of module names, as in ``blocks.*.attn``.
    **context
        Passed with every call, such as ``grid``.

    Raises
    ------
    InputError
        If no module matches, one that matches is converted already, or one lies inside another.

    Examples
    --------
    >>> from cloudchamber.attention import convert, revert
    >>> model = torch.nn.TransformerEncoderLayer(16, 2, batch_first=True)
    >>> class All:
    ...     def reset(self, spec, rng): ...
    ...     def select(self, scene):
    ...         from cloudchamber.attention import Selection
    ...         return Selection(torch.ones(1, scene.q_blocks.count, scene.k_blocks.count, dtype=bool).numpy())
    >>> [each.name for each in convert(model, lambda: SparseAttention(All()), "self_attn")]
    ['self_attn']
    >>> revert(model)
    1
    """
    found = [(name, module) for name, module in model.named_modules() if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        names = [name for name, module in model.named_modules() if name and "att" in name.lower()]
        raise InputError(f"no module's name matches {pattern!r}; names that may be attention: {', '.join(names[:8]) or 'none'}.")
    for name, module in found:
        if any(MARK in vars(each) or MARK in each._modules for each in module.modules()):
            raise InputError(f"{name or 'the model'} is converted already, or holds a module that is; revert the model first.")
        if any(name.startswith(f"{other}.") or (not other and name) for other, _ in found):
            raise InputError(f"{name} lies inside another module that matches {pattern!r}; name only the attention.")
    made = []
    for number, (name, module) in enumerate(found):
        like = next((each for each in module.parameters() if each.is_floating_point()), None)
        attention = spec().at(layer=number / len(found))
        if like is not None:
            attention.to(like.device, like.dtype)
        converted = Converted(name, module, attention, dict(context))
        module.register_module(MARK, converted.attention)
        _wrap(module, converted)
        made.append(converted)
    return made


def revert(model: torch.nn.Module) -> int:
    """Undo :func:`convert` in a whole model; returns how many modules it was."""
    count = 0
    for module in list(model.modules()):
        if MARK in module._modules:
            del module._modules[MARK]
            for method in ("attend", "forward"):
                vars(module).pop(method, None)
            hook = vars(module).pop(HOOK, None)
            if hook is not None:
                hook.remove()
            count += 1
    return count


def _wrap(module: torch.nn.Module, converted: Converted) -> None:
    """An instance attribute hides the class's method; taking it away brings that back."""
    if callable(getattr(module, "attend", None)):
        vars(module)["attend"] = converted.attend
        return
    vars(module)["forward"] = partial(_forward, converted, vars(module).get("forward"))
    # an encoder layer's fused inference passes its attention by, but not if that has a hook
    vars(module)[HOOK] = module.register_forward_pre_hook(lambda *_: None)


def _forward(converted: Converted, inner: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Any:
    """The module's forward, with dense attention sparse inside it; its parts are named by arguments, so that a copy runs the copy's."""
    with _swapped(converted):
        if inner is not None:
            return inner(*args, **kwargs)
        return type(converted.module).forward(converted.module, *args, **kwargs)


class _Swap:
    """Torch's function is replaced while any converted module runs, in whichever thread, and put back by the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._fast = True
        self.original: Callable[..., Tensor] = torch.nn.functional.scaled_dot_product_attention

    def enter(self) -> None:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self.original = torch.nn.functional.scaled_dot_product_attention
                vars(torch.nn.functional)["scaled_dot_product_attention"] = _dispatch
                self._fast = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)  # the fused path for inference never calls the function

    def leave(self) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                vars(torch.nn.functional)["scaled_dot_product_attention"] = self.original
                torch.backends.mha.set_fastpath_enabled(self._fast)


_SWAP = _Swap()


@contextmanager
def _swapped(converted: Converted) -> Iterator[None]:
    """Within, dense attention called from this thread or task is sparse."""
    token = _ACTIVE.set(converted)
    _SWAP.enter()
    try:
        yield
    finally:
        _SWAP.leave()
        _ACTIVE.reset(token)


def _dispatch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What stands in the place of torch's function; threads without a conversion get the original."""
    converted = _ACTIVE.get()
    options = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    if converted is None:
        return _SWAP.original(query, key, value, **options)
    plain = attn_mask is None and not dropout_p and not is_causal and query.ndim == 4
    if not plain:
        converted.skipped += 1
        return _SWAP.original(query, key, value, **options)
    if scale is not None:  # the sparse kernel's own is 1 / sqrt(dimension)
        query = query * (scale * query.shape[-1] ** 0.5)
    return converted.attend(query, key, value)
