"""A policy from a file as the runner takes it: a picklable constructor that carries the source and opens it in a jail in the worker."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.study import Study

from .levels import JAILS, check_source, jail_of
from .limits import Limits


@dataclass(frozen=True, eq=False)
class JailedPolicy:
    """Constructor of a jailed policy.

    Parameters
    ----------
    study : Study
        Its Protocol and the libraries it allows.
    source : str
    name : str or None
        The class, or ``Class(key=value)``; None: the one with the Protocol's verbs.
    path : str
        What to call it in messages.
    level : str
        ``auto`` is resolved here, once, so that a worker with a weaker jail fails instead of using it.
    limits : Limits

    Raises
    ------
    InputError
        If the level is unknown.
    JailUnavailable
        If this machine cannot jail it so.
    """

    study: Study
    source: str
    name: str | None = None
    path: str = "policy.py"
    level: str = "auto"
    limits: Limits | None = None

    def __post_init__(self) -> None:
        check_source(self.source, self.path)
        object.__setattr__(self, "level", jail_of(self.level, self.study.libraries).level)

    def __call__(self) -> Any:
        """Open the policy; see :meth:`cloudchamber.jail.Jail.load`."""
        jail = JAILS[self.level](libraries=self.study.libraries)
        if self.level != "none" and _is_compiled(self.source, self.study):
            jail.warm(self.study.protocol, kernels(self.study), functools.partial(_drive, self.study))
        return jail.load(self.source, self.study.protocol, name=self.name, limits=self.limits, path=self.path)

    def check(self) -> None:
        """Open it once.

        Raises
        ------
        InputError
            If it does not load.
        """
        try:
            with self() as _:
                pass
        except CandidateError as error:
            feedback = f" ({error.feedback})" if error.feedback and error.kind not in ("crash", "type", "input") else ""
            raise InputError(f"{error}{feedback}") from error

    @property
    def note(self) -> str:
        """What a reader of the results must know."""
        weak = {"subprocess": "in a process with all your rights", "none": "in this process with all your rights"}
        return (
            f"{self.path} ran without a jail (level {self.level!r}: {weak[self.level]}); do not trust its figures."
            if self.level in weak
            else ""
        )


def source_of(maker: Callable[[], Any]) -> tuple[str, str, str] | None:
    """The source file of a built-in policy, its expression ``Class(key=value)`` and its path; None if it is not one file's policy."""
    policy = maker()
    file = inspect.getsourcefile(type(policy))
    if file is None or is_clairvoyant(policy):
        return None
    return Path(file).read_text(encoding="utf-8"), repr(policy), Path(file).name


_kernels: dict[tuple[type, str], dict[str, str]] = {}  # by class and name: in a worker every task brings its own copy of the study


def kernels(study: Study) -> dict[str, str]:
    """Built-in policies with compiled kernels: expression and source."""
    key = type(study), study.name
    if key not in _kernels:
        known = [found for maker in study.policies().values() if (found := source_of(maker)) is not None]
        _kernels[key] = {name: source for source, name, _ in known if "jit" in source}
    return _kernels[key]


@functools.lru_cache(maxsize=256)
def _imported(source: str) -> tuple[str, ...]:
    """``module.name`` of whatever a source imports from a module."""
    try:
        nodes = ast.walk(ast.parse(source))
        return tuple({f"{node.module}.{each.name}" for node in nodes if isinstance(node, ast.ImportFrom) for each in node.names})
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _is_compiled(source: str, study: Study) -> bool:
    """Whether a source imports sibling policies that have compiled kernels."""
    home = type(study).__module__.rpartition(".")[0]
    siblings = (f"{home}.policies.", *(f"{home}.{name.partition('(')[0]}" for name in kernels(study)))
    return bool(kernels(study)) and any(each.startswith(siblings) for each in _imported(source))


def _drive(study: Study, policy: Any) -> None:
    study.trial(policy, study.workloads()["smoke"], 0)
