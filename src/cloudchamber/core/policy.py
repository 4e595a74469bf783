"""The uniform contract of every policy: parameters that are only stored, a table that checks them, clone and repr.

``Parameters`` is what scikit-learn calls an estimator's parameters; ``Policy`` adds ``reset``. A user's policy need not
derive from either (the Protocol of its problem module is enough), but gets all of this if it does.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from .candidate import Candidate
from .errors import InputError

P = TypeVar("P", bound="Parameters")


@dataclass(frozen=True)
class Real:
    """A finite number in [low, high]; ``strict`` excludes ``low``."""

    low: float = -math.inf
    high: float = math.inf
    strict: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value is allowed."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        return (self.low < value if self.strict else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"a number in {'(' if self.strict else '['}{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Integer:
    """A whole number in [low, high]."""

    low: int
    high: float = math.inf

    def holds(self, value: object) -> bool:
        """Whether a value is allowed."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a whole number in [{self.low}, {self.high:g}]"


class Choice:
    """One of the given values."""

    def __init__(self, *values: object) -> None:
        self.values = values

    def holds(self, value: object) -> bool:
        """Whether a value is allowed."""
        return any(value is each or (type(value) is type(each) and value == each) for each in self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.values))


@dataclass(frozen=True)
class Text:
    """A non-empty string."""

    def holds(self, value: object) -> bool:
        """Whether a value is allowed."""
        return isinstance(value, str) and bool(value)

    def __str__(self) -> str:
        return "a non-empty string"


class Instance:
    """An object of one of the given classes."""

    def __init__(self, *classes: type) -> None:
        self.classes = classes

    def holds(self, value: object) -> bool:
        """Whether a value is allowed."""
        return isinstance(value, self.classes)

    def __str__(self) -> str:
        return "an instance of " + " or ".join(each.__name__ for each in self.classes)


@dataclass(frozen=True)
class Optional:
    """None, or what ``inner`` allows."""

    inner: Any

    def holds(self, value: object) -> bool:
        """Whether a value is allowed."""
        return value is None or self.inner.holds(value)

    def __str__(self) -> str:
        return f"None or {self.inner}"


class Parameters:
    """An object described by its constructor's keyword parameters, which the constructor only stores.

    Subclasses declare ``_constraints``, a table from parameter name to what is allowed; :meth:`validate` checks it.

    Examples
    --------
    >>> class Threshold(Parameters):
    ...     _constraints = {"cut": Real(0, 1)}
    ...     def __init__(self, cut=0.5):
    ...         self.cut = cut
    >>> Threshold(0.3)
    Threshold(cut=0.3)
    >>> clone(Threshold(0.3)).get_params()
    {'cut': 0.3}
    """

    _constraints: ClassVar[Mapping[str, Any]] = {}

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's parameters and their present values."""
        return {name: getattr(self, name) for name in _defaults(type(self))}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name and return self.

        Raises
        ------
        InputError
            If a name is not a parameter of this class.
        """
        known = _defaults(type(self))
        for name, value in params.items():
            if name not in known:
                allowed = f"allowed: {', '.join(known)}" if known else "it has none"
                raise InputError(f"{type(self).__name__} has no parameter {name!r}; {allowed}.")
            setattr(self, name, value)
        return self

    def validate(self) -> None:
        """Check every parameter against ``_constraints``, nested ones included.

        Raises
        ------
        InputError
            Naming the parameter, the value given and what is allowed.
        """
        for name, rule in self._constraints.items():
            value = getattr(self, name)
            if not rule.holds(value):
                raise InputError(f"{type(self).__name__}: {name} must be {rule}, got {value!r}.")
            if isinstance(value, Parameters):
                value.validate()

    def __repr__(self) -> str:
        defaults = _defaults(type(self))
        shown = (f"{name}={value!r}" for name, value in self.get_params().items() if repr(value) != repr(defaults[name]))
        return f"{type(self).__name__}({', '.join(shown)})"


class Policy(Parameters):
    """A policy: parameters, a ``reset`` before use, and the verbs of its problem's Protocol.

    No I/O, no clock, no global state: an observation in, an action out. Learned state ends in ``_``.
    ``clairvoyant`` classes of the package (and only those) are shown the trial's future in ``spec.future``.
    """

    clairvoyant: bool = False

    def reset(self, spec: Any, rng: Any) -> None:
        """Check the parameters and forget everything learned; called before each trial."""
        self.validate()
        self.spec_ = spec
        self.rng_ = rng


def _defaults(cls: type) -> dict[str, Any]:
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    return {
        name: p.default for name, p in signature.parameters.items() if name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def clone(policy: P) -> P:
    """Return a fresh, unused policy with the same parameters (nested ones cloned)."""
    params = {name: clone(value) if isinstance(value, Parameters) else value for name, value in policy.get_params().items()}
    return type(policy)(**params)


def is_clairvoyant(policy: object) -> bool:
    """Whether a policy may be shown the future: it asks for it, and it and its parts are the package's own."""
    policy = policy.policy if isinstance(policy, Candidate) else policy
    parts = [policy, *(value for value in getattr(policy, "__dict__", {}).values() if isinstance(value, Parameters))]
    is_ours = all(type(part).__module__.startswith("cloudchamber.") for part in parts)
    return is_ours and bool(getattr(policy, "clairvoyant", False))


def policy_classes(base: type = Policy, package: str = "cloudchamber.") -> Iterable[type]:
    """Yield every imported policy class of the package, in order of its name (for the contract test)."""
    found: set[type] = set()
    queue: list[type] = [base]
    while queue:
        child: type
        for child in queue.pop().__subclasses__():
            if child not in found:
                found.add(child)
                queue.append(child)
    return sorted(
        (each for each in found if each.__module__.startswith(package) and not each.__name__.startswith("_")),
        key=lambda each: each.__qualname__,
    )
