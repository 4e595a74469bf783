"""A policy as worlds call it: whatever it raises becomes a :class:`CandidateError`, never a crash of the world."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from .errors import CandidateError, JailUnavailable


class Candidate:
    """Wraps a policy; its methods raise only :class:`CandidateError` (and ``KeyboardInterrupt``), saying what and where.

    Parameters
    ----------
    policy : object
    """

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "policy":
            raise AttributeError(name)
        value = getattr(self.policy, name)
        if not callable(value):
            return value
        self.__dict__[name] = asked = partial(ask, value)
        return asked


def ask(verb: Callable[..., Any], *args: Any) -> Any:
    """Call untrusted code.

    Raises
    ------
    CandidateError
        For anything it raises but :class:`JailUnavailable`, the host's fault; ``sys.exit`` too, which would otherwise end the study as
        if all were well.
    """
    try:
        return verb(*args)
    except (CandidateError, JailUnavailable):
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise CandidateError(f"{type(error).__name__} in {where.name}, line {where.lineno}: {error}") from error
