"""Finding studies (entry points), and turning what a user names into a policy."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from . import RESERVED_NAMES
from .errors import ChamberError, InputError, unknown
from .policy import Policy
from .source import evaluate, verbs_of
from .study import Study

STUDIES, COMMANDS, JAILS = "cloudchamber.studies", "cloudchamber.commands", "cloudchamber.jails"


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda each: each.name)}


def study_names() -> list[str]:
    """Names of every registered study, third parties' included, without importing any."""
    return list(_points(STUDIES))


def command_names(verb: str) -> list[str]:
    """Modules that bring a command under ``chamber VERB``."""
    return [name.partition(".")[2] for name in _points(COMMANDS) if name.startswith(f"{verb}.")]


def loadable_studies() -> tuple[list[Study], list[ChamberError]]:
    """Return every registered study that loads, and the errors of those that do not: one broken package must not hide the rest."""
    found: list[Study] = []
    errors: list[ChamberError] = []
    for name in study_names():
        try:
            found.append(load_study(name))
        except ChamberError as error:
            errors.append(error)
    return found, errors


def load_command(verb: str, name: str) -> Callable[..., Any]:
    """Return the function behind ``chamber VERB NAME``."""
    return _points(COMMANDS)[f"{verb}.{name}"].load()  # type: ignore[no-any-return]


@cache
def load_study(name: str) -> Study:
    """Return the registered study of that name.

    Raises
    ------
    UnknownName
        If there is none; the message names the nearest.
    ChamberError
        If its package does not load.
    """
    points = _points(STUDIES)
    if name not in points:
        raise unknown("study", name, points)
    if name in RESERVED_NAMES:
        raise InputError(f"a study may not be called {name!r}, since that is a command of `chamber evolve`; its package must rename it.")
    try:
        return points[name].load()()  # type: ignore[no-any-return]
    except Exception as error:  # a third party's study must not take the others down with it
        raise ChamberError(f"study {name!r} ({points[name].value}) does not load: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class NamedPolicy:
    """Constructor of a built-in policy with parameters: ``Name(key=value, ...)`` as its repr writes it."""

    module: str
    text: str
    classes: tuple[type, ...] = ()

    def __call__(self) -> Any:
        """Make a new policy."""
        home = importlib.import_module(self.module)
        names = {name: getattr(home, name) for name in getattr(home, "__all__", ())} | {cls.__name__: cls for cls in self.classes}
        return evaluate(ast.parse(self.text, mode="eval").body, names, self.text)


def jailed(study: Study, source: str, **options: Any) -> Callable[[], Any]:
    """Return a picklable constructor that opens policy source in a jail: see :class:`cloudchamber.jail.JailedPolicy`."""
    make: Callable[..., Any] = _points(JAILS)["policy"].load()  # the jail stands above core, so core finds it as it finds studies
    return make(study, source, **options)  # type: ignore[no-any-return]


def load_policy(study: Study, name: str, jail: str = "auto", limits: Any = None) -> Callable[[], Any]:
    """Return a picklable constructor for what the user named.

    Parameters
    ----------
    study : Study
    name : str
        A built-in name, ``Name(key=value, ...)``, or ``path/to/file.py[:Class[(key=value, ...)]]``.
    jail : str
        Level at which policies from files run: ``auto``, ``namespace``, ``landlock``, ``subprocess``, ``none``.
    limits : Limits, optional
        What a policy from a file may use up in one trial.

    Raises
    ------
    InputError
        If there is no such policy or file, or the class does not fit the study's Protocol.
    JailUnavailable
        If it is a file and this machine has no jail of that level.
    """
    builtin = study.policies()
    if name in builtin:
        return builtin[name]
    path, _, class_name = name.partition(":")
    if path.endswith(".py"):
        file = Path(path)
        if not file.is_file():
            raise InputError(f"no policy file {path!r} here; give a path to an existing .py file.")
        try:
            source = file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            raise InputError(f"cannot read the policy file {path!r} as UTF-8 text: {error}.") from None
        return jailed(study, source, name=class_name or None, path=path, level=jail, limits=limits)
    if name.endswith(")"):
        try:
            ast.parse(name, mode="eval")
        except SyntaxError:
            raise InputError(f"cannot read the policy {name!r}; use Name(key=value).") from None
        own = tuple(maker for maker in builtin.values() if isinstance(maker, type))
        made = NamedPolicy(type(study).__module__.rpartition(".")[0] or type(study).__module__, name, own)
        policy = made()
        if not isinstance(policy, Policy) or not all(callable(getattr(policy, verb, None)) for verb in verbs_of(study.protocol)):
            raise InputError(f"{name!r} is not a policy of study {study.name!r}; its policies are {', '.join(builtin)}.")
        policy.validate()
        return made
    raise unknown(f"{study.name} policy", name, builtin)
