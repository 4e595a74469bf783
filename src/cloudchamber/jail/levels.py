"""Jails by their walls, from the strongest to none, and the one that is picked when none is named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, Protocol, TypeVar

from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError, InputError, JailUnavailable
from cloudchamber.core.messages import encode
from cloudchamber.core.source import MAX_SOURCE, make_policy

from .launch import Level, Zygote, zygote
from .limits import Limits
from .proxy import Session, proxy_of
from .stage import stage
from .wire import Contract

P = TypeVar("P")
LIBRARIES = ("numpy", "numba")
LEVELS: tuple[Level, ...] = ("namespace", "landlock", "subprocess", "none")


class Jail(Protocol):
    """Turns policy source into a proxy with the Protocol's verbs."""

    level: ClassVar[Level]

    def load(self, source: str, protocol: type[P], *, name: str | None = None, limits: Limits | None = None, path: str = "policy.py") -> P:
        """Run the source behind this jail's walls and return the proxy.

        Raises
        ------
        CandidateError
            If the source does not run, or holds no class (or several) with the Protocol's verbs (kind ``input``).
        InputError
            If it is no text or too long, or the Protocol cannot be jailed.
        JailUnavailable
            If the host cannot put the walls up.
        """


def contract_of(protocol: Any) -> Contract:
    """The Protocol's contract, read once."""
    return _contract(protocol)


_contract = lru_cache(maxsize=64)(Contract)


class _ProcessJail:
    """A zygote, and a throw-away child per policy.

    Parameters
    ----------
    libraries : tuple of str
        Distributions a candidate may import.
    """

    level: ClassVar[Level]

    def __init__(self, libraries: tuple[str, ...] = LIBRARIES) -> None:
        self.libraries = libraries

    def load(self, source: str, protocol: type[P], *, name: str | None = None, limits: Limits | None = None, path: str = "policy.py") -> P:
        """See :meth:`Jail.load`."""
        check_source(source, path)
        contract, limits = contract_of(protocol), limits or Limits()
        session = Session(self._zygote(protocol).spawn(limits), contract, limits)
        try:
            session.wait_for_walls()
            session.load(source, name, path)
        except BaseException:
            session.close()
            raise
        return proxy_of(session, contract, source, name)  # type: ignore[no-any-return]

    def warm(self, protocol: type[P], policies: dict[str, str], drive: Callable[[P], Any]) -> None:
        """Run the package's own policies once in the zygote, so that every child inherits their compiled kernels.

        Parameters
        ----------
        protocol : type
        policies : dict of str to str
            Name (``Class(key=value)``) and source of each.
        drive : callable
            Runs a trial with the proxy it is given.
        """
        home = self._zygote(protocol)
        if home.is_warm:
            return
        home.is_warm = True
        contract, limits = contract_of(protocol), Limits(call_s=300, wall_s=3600)
        for name, source in policies.items():
            session = Session(home.warm(), contract, limits)
            try:
                session.load(source, name, name)
                drive(proxy_of(session, contract, source, name))
            except CandidateError:
                pass  # it will fail the same way in its own trial, where it is reported
            finally:
                session.close()

    def _zygote(self, protocol: type) -> Zygote:
        return zygote(self.level, stage(protocol, self.libraries))


class NamespaceJail(_ProcessJail):
    """Bubblewrap around the zygote; per trial new namespaces, throw-away mounts, landlock, seccomp and limits."""

    level = "namespace"


class LandlockJail(_ProcessJail):
    """Where user namespaces are not to be had: landlock, seccomp and limits, the user id unchanged, nothing writable."""

    level = "landlock"


class SubprocessJail(_ProcessJail):
    """Another process with limits, but with all the user's rights: stops accidents, not attacks."""

    level = "subprocess"


class InProcess:
    """No wall at all, for trusted policies; arguments and results are serialised all the same, so that results are equal."""

    level: ClassVar[Level] = "none"

    def load(self, source: str, protocol: type[P], *, name: str | None = None, limits: Limits | None = None, path: str = "policy.py") -> P:
        """See :meth:`Jail.load`."""
        check_source(source, path)
        contract = contract_of(protocol)
        try:
            policy = make_policy(source, contract.verbs, name, path)
        except InputError as error:
            raise CandidateError(str(error), "input") from None
        return proxy_of(_Here(policy, contract), contract, source, name)  # type: ignore[no-any-return]


class _Here:
    def __init__(self, policy: Any, contract: Contract) -> None:
        self._verbs, self._contract = [getattr(policy, verb) for verb in contract.verbs], contract

    def call(self, verb: int, args: Any) -> Any:
        result = ask(self._verbs[verb], *self._contract.unpack(verb, self._contract.pack(args)))
        try:
            return self._contract.result(verb, encode(result))
        except (InputError, NotImplementedError, TypeError, OverflowError) as error:
            raise CandidateError(f"{self._contract.verbs[verb]}(): {error}", "type") from None

    def call_many(self, verb: int, calls: Any) -> list[Any]:
        return [self.call(verb, call) for call in calls]

    def close(self) -> None:
        """Nothing to end."""


JAILS: dict[str, Callable[..., Any]] = {
    "namespace": NamespaceJail,
    "landlock": LandlockJail,
    "subprocess": SubprocessJail,
    "none": lambda libraries=LIBRARIES: InProcess(),
}


def check_source(source: str, path: str) -> None:
    """Refuse what is not source text.

    Raises
    ------
    InputError
    """
    if not isinstance(source, str):
        raise InputError(f"{path}: policy source must be text, got {type(source).__name__}.")
    try:
        size = len(source.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: policy source must be UTF-8 text: {error}.") from None
    if size > MAX_SOURCE:
        raise InputError(f"{path}: policy source of {size} bytes; at most {MAX_SOURCE} are taken.")


@lru_cache(maxsize=8)
def best_level() -> Level:
    """The strongest level that stands on this machine.

    Raises
    ------
    JailUnavailable
        If neither ``namespace`` nor ``landlock`` does: weaker levels must be named.
    """
    from .check import stands

    reasons = []
    for level in LEVELS[:2]:
        problem = stands(level)
        if problem is None:
            return level
        reasons.append(f"{level}: {problem}")
    raise JailUnavailable(
        f"this machine cannot jail a policy ({' '.join(reasons)}). Install bubblewrap, or name a weaker level: --jail subprocess."
    )


def jail_of(level: str = "auto", libraries: tuple[str, ...] = LIBRARIES) -> Any:
    """The jail of a level; ``auto`` is the best of ``namespace`` and ``landlock``.

    Raises
    ------
    InputError
        For an unknown level.
    JailUnavailable
        If ``auto`` finds none. Never falls to a weaker level on its own.
    """
    chosen = best_level() if level == "auto" else level
    if chosen not in JAILS:
        raise InputError(f"no jail level {level!r}; use auto, {', '.join(LEVELS)}.")
    if chosen in ("subprocess", "none"):
        where = "in this process" if chosen == "none" else "in a process of its own"
        warnings.warn(
            f"jail level {chosen!r}: the policy runs {where} with all your rights; run only code you trust.", UserWarning, stacklevel=3
        )
    return JAILS[chosen](libraries=libraries)


def load(
    source: str, protocol: type[P], *, name: str | None = None, limits: Limits | None = None, level: str = "auto",
    libraries: tuple[str, ...] = LIBRARIES,
) -> P:  # fmt: skip
    r"""Run policy source in a jail and return a proxy with the Protocol's verbs.

    Parameters
    ----------
    source : str
    protocol : type
        The Protocol whose verbs the policy has; its annotations say what may cross.
    name : str or None
        The class, or ``Class(key=value)``; None: the one that has the verbs.
    limits : Limits
    level : {"auto", "namespace", "landlock", "subprocess", "none"}
    libraries : tuple of str
        Distributions the policy may import.

    Raises
    ------
    CandidateError, InputError, JailUnavailable

    Examples
    --------
    >>> from cloudchamber.jail import load
    >>> from cloudchamber.spot import SpotPolicy
    >>> source = "class Lazy:\n    def reset(self, spec, rng): pass\n    def decide(self, obs): pass"
    >>> policy = load(source, SpotPolicy)  # doctest: +SKIP
    >>> policy.decide(obs)  # doctest: +SKIP
    Traceback (most recent call last):
        ...
    cloudchamber.core.errors.CandidateError: decide(): not a valid Decision: Expected `object`, got `null`
    """
    return jail_of(level, libraries).load(source, protocol, name=name, limits=limits)  # type: ignore[no-any-return]
