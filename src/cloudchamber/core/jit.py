"""Compiled kernels: numba's ``njit``, cached on disk, asked for by the extra of the module that uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import MissingExtra


def njit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function on its first call.

    Raises
    ------
    MissingExtra
        If numba is not installed.
    """
    try:
        import numba
    except ImportError:
        module = function.__module__.split(".")[1]
        raise MissingExtra(f"{module} needs numba", module) from None
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no place to cache in, as in a jail
        return numba.njit(**options)(function)  # type: ignore[no-any-return]
