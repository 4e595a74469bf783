"""Policies as source text: run it, find the class that has the Protocol's verbs, make the policy.

The same few functions serve inside the jail and, for the package's own code, in process.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from .candidate import ask
from .errors import CandidateError, InputError

MAX_SOURCE = 1 << 20  # bytes


def verbs_of(protocol: type) -> tuple[str, ...]:
    """The methods a Protocol asks for, those it extends first."""
    found = {name: value for cls in reversed(protocol.__mro__) for name, value in vars(cls).items()}
    return tuple(name for name, value in found.items() if inspect.isfunction(value) and not name.startswith("_"))


def make_policy(source: str, verbs: tuple[str, ...], name: str | None = None, path: str = "policy.py") -> Any:
    """Run the source and return a new policy.

    Parameters
    ----------
    source : str
    verbs : tuple of str
        Methods it must have.
    name : str or None
        Its class, or ``Class(key=value)``; None: the one class of the source that has the verbs.
    path : str
        What to call the source in messages.

    Raises
    ------
    CandidateError
        If the source or the constructor raises.
    InputError
        If it holds no such class, or several that fit and none was named.
    """
    module = run_source(source, path)
    class_name, bracket, _ = (name or "").partition("(")
    cls = class_of(module, verbs, class_name or None, path)
    try:
        if not bracket:
            return ask(cls)
        names = vars(module) | {cls.__name__: cls}
        return ask(evaluate, ast.parse(str(name), mode="eval").body, names, str(name))
    except CandidateError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise CandidateError(f"{path}: {name or f'{cls.__name__}()'} failed: {error}", error.kind) from error.__cause__
    except SyntaxError:
        raise InputError(f"cannot read the policy {name!r}; use Class(key=value).") from None


def class_of(module: ModuleType, verbs: tuple[str, ...], class_name: str | None, path: str) -> type:
    """Return the policy class of a module; see :func:`make_policy`."""
    own = {name: value for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__}
    if class_name is not None:
        cls = getattr(module, class_name, None)
        if not isinstance(cls, type):
            raise InputError(f"{path} has no class {class_name!r}; it has {', '.join(own) or 'none'}.")
        missing = [verb for verb in verbs if not callable(getattr(cls, verb, None))]
        if missing:
            raise InputError(f"{path}: {class_name} lacks {', '.join(f'{verb}()' for verb in missing)}.")
        return cls
    able = [cls for cls in own.values() if all(callable(getattr(cls, verb, None)) for verb in verbs)]
    fits = [cls for cls in able if not any(cls in other.__mro__[1:] for other in able)]  # a base is not the policy
    if len(fits) != 1:
        found = ", ".join(cls.__name__ for cls in fits) or "none"
        raise InputError(
            f"{path}: expected one class with {', '.join(f'{verb}()' for verb in verbs)}, found {found}; name it: file.py:Class."
        )
    return fits[0]


def run_source(source: str, path: str) -> ModuleType:
    """Run source text as a module of its own (once per process and text).

    Raises
    ------
    CandidateError
        If it does not compile or raises.
    """
    name = f"chamber_policy_{hashlib.sha256(source.encode('utf-8', 'replace')).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = path  # numba wants to know where a function comes from
    sys.modules[name] = module  # so its classes can be pickled and its dataclasses resolve
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise CandidateError(f"{path} does not run: {type(error).__name__}{line}: {error}") from error
    return module


def evaluate(node: ast.expr, names: Mapping[str, Any], text: str) -> Any:
    """Evaluate ``Name(key=value, ...)`` with literals and nested such calls; nothing else.

    Raises
    ------
    InputError
        Saying which part cannot be read.
    """
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise InputError(f"cannot read {ast.unparse(node)!r} in {text!r}; use Name(key=value) with plain values.") from None
    if not isinstance(node.func, ast.Name) or node.func.id not in names:
        known = ", ".join(sorted(name for name, value in names.items() if isinstance(value, type)))
        raise InputError(f"{ast.unparse(node.func)!r} in {text!r} is not a name of the study's module; known: {known}.")
    cls = names[node.func.id]
    args = [evaluate(arg, names, text) for arg in node.args]
    if any(key.arg is None for key in node.keywords):
        raise InputError(f"cannot read ** in {text!r}; write the parameters out: Name(key=value).")
    kwargs = {str(key.arg): evaluate(key.value, names, text) for key in node.keywords}
    try:
        return cls(*args, **kwargs)
    except TypeError as error:
        allowed = list(inspect.signature(cls).parameters) if isinstance(cls, type) else []
        raise InputError(f"{text!r}: {error}; its parameters are {', '.join(allowed) or 'none'}.") from None
