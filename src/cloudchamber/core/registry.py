"""Finding studies (entry points), and turning what a user names into a policy."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from .candidate import ask
from .errors import CandidateError, ChamberError, InputError, unknown
from .policy import Policy
from .study import Study

STUDIES, COMMANDS = "cloudchamber.studies", "cloudchamber.commands"


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
    try:
        return points[name].load()()  # type: ignore[no-any-return]
    except Exception as error:  # a third party's study must not take the others down with it
        raise ChamberError(f"study {name!r} ({points[name].value}) does not load: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class FilePolicy:
    """Constructor of a policy in a user's file: carries the source, so workers need not see the file.

    Parameters
    ----------
    path, source : str
    class_name : str or None
        None: the one class that has the Protocol's verbs.
    verbs : tuple of str
    """

    path: str
    source: str
    class_name: str | None
    verbs: tuple[str, ...]

    def __call__(self) -> Any:
        """Make a new policy.

        Raises
        ------
        CandidateError
            If the file does not run, or the class cannot be made without arguments.
        """
        cls = self.load()
        try:
            return ask(cls)
        except CandidateError as error:
            raise CandidateError(f"{self.path}: {cls.__name__}() failed: {error}") from error.__cause__

    def load(self) -> type:
        """Run the file and return the class.

        Raises
        ------
        CandidateError
            If the file raises.
        InputError
            If it holds no such class, or several that fit and none was named.
        """
        module = _module_of(self.path, self.source)
        if self.class_name is not None:
            cls = getattr(module, self.class_name, None)
            if not isinstance(cls, type):
                raise InputError(f"{self.path} has no class {self.class_name!r}; it has {', '.join(_own_classes(module)) or 'none'}.")
            missing = [verb for verb in self.verbs if not callable(getattr(cls, verb, None))]
            if missing:
                raise InputError(f"{self.path}: {self.class_name} lacks {', '.join(f'{verb}()' for verb in missing)}.")
            return cls
        fits = [cls for cls in _own_classes(module).values() if all(callable(getattr(cls, verb, None)) for verb in self.verbs)]
        if len(fits) != 1:
            found = ", ".join(cls.__name__ for cls in fits) or "none"
            raise InputError(
                f"{self.path}: expected one class with {', '.join(f'{verb}()' for verb in self.verbs)}, found {found}; "
                "name it: file.py:Class."
            )
        return fits[0]


@cache
def _module_of(path: str, source: str) -> Any:
    name = f"chamber_policy_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so its classes can be pickled and its dataclasses resolve
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CandidateError(f"{path} does not run: {type(error).__name__}: {error}") from error
    return module


def _own_classes(module: Any) -> dict[str, type]:
    return {name: value for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__}


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
        return _evaluate(ast.parse(self.text, mode="eval").body, names, self.text)


def _evaluate(node: ast.expr, names: Mapping[str, Any], text: str) -> Any:
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise InputError(f"cannot read {ast.unparse(node)!r} in {text!r}; use Name(key=value) with plain values.") from None
    if not isinstance(node.func, ast.Name) or node.func.id not in names:
        raise InputError(f"{ast.unparse(node.func)!r} in {text!r} is not a name of the study's module; known: {', '.join(sorted(names))}.")
    cls = names[node.func.id]
    args = [_evaluate(arg, names, text) for arg in node.args]
    if any(key.arg is None for key in node.keywords):
        raise InputError(f"cannot read ** in {text!r}; write the parameters out: Name(key=value).")
    kwargs = {str(key.arg): _evaluate(key.value, names, text) for key in node.keywords}
    try:
        return cls(*args, **kwargs)
    except TypeError as error:
        allowed = list(inspect.signature(cls).parameters) if isinstance(cls, type) else []
        raise InputError(f"{text!r}: {error}; its parameters are {', '.join(allowed) or 'none'}.") from None


def verbs_of(protocol: type) -> tuple[str, ...]:
    """The methods a Protocol asks for."""
    return tuple(name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_"))


def load_policy(study: Study, name: str) -> Callable[[], Any]:
    """Return a picklable constructor for what the user named.

    Parameters
    ----------
    study : Study
    name : str
        A built-in name, ``Name(key=value, ...)``, or ``path/to/file.py[:Class]``.

    Raises
    ------
    InputError
        If there is no such policy or file, or the class does not fit the study's Protocol.
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
        candidate = FilePolicy(path, source, class_name or None, verbs_of(study.protocol))
        try:
            candidate()
        except CandidateError as error:
            raise InputError(str(error)) from error
        warnings.warn(
            f"{path} runs in this process with all your rights: there is no jail yet, so run only code you trust.",
            UserWarning,
            stacklevel=2,
        )
        return candidate
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
