"""A jail that misbehaves on purpose, from a seed: for testing that a study survives what a candidate or a host may do to it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cloudchamber.core.errors import CandidateError, InputError, JailUnavailable

from .levels import contract_of
from .limits import Limits
from .proxy import proxy_of

P = TypeVar("P")


class ChaosJail:
    r"""Wraps a jail; each answer may be delayed, cut, swapped with an earlier one, or never come.

    Parameters
    ----------
    jail : Jail
        The jail that really runs the policy.
    seed : int
    delay, death, truncation, reordering, host : float
        Probability per call: of ``delay_s`` seconds of waiting; of the policy's death; of an answer that is cut; of an answer to another
        question; of a fault of the host, whose trial is to be tried again.
    delay_s : float

    Examples
    --------
    >>> from cloudchamber.jail import InProcess
    >>> from cloudchamber.jail.probe import Prober
    >>> source = "class P:\n    def attempt(self, wall, target): return wall"
    >>> ChaosJail(InProcess(), death=1.0).load(source, Prober).attempt("a", "b")
    Traceback (most recent call last):
        ...
    cloudchamber.core.errors.CandidateError: its process was killed by chaos
    """

    def __init__(
        self,
        jail: Any,
        seed: int = 0,
        *,
        delay: float = 0.0,
        death: float = 0.0,
        truncation: float = 0.0,
        reordering: float = 0.0,
        host: float = 0.0,
        delay_s: float = 0.01,
    ) -> None:
        self.jail = jail
        self.level = jail.level
        self.delay_s = delay_s
        self._chances: dict[str, float] = {
            "delay": delay,
            "death": death,
            "truncation": truncation,
            "reordering": reordering,
            "host": host,
        }
        for name, chance in self._chances.items():
            if not 0 <= chance <= 1:
                raise InputError(f"ChaosJail: {name} is a probability in [0, 1], got {chance!r}.")
        self._rng = random.Random(seed)

    def load(self, source: str, protocol: type[P], *, name: str | None = None, limits: Limits | None = None, path: str = "policy.py") -> P:
        """See :meth:`Jail.load`."""
        inner = self.jail.load(source, protocol, name=name, limits=limits, path=path)
        contract = contract_of(protocol)
        session = _Session(inner, contract.verbs, self._chances, self.delay_s, random.Random(self._rng.random()))
        return proxy_of(session, contract, source, name)  # type: ignore[no-any-return]


class _Session:
    def __init__(self, inner: Any, verbs: tuple[str, ...], chances: dict[str, float], delay_s: float, rng: random.Random) -> None:
        self._inner, self._verbs, self._chances, self._delay_s, self._rng = inner, verbs, chances, delay_s, rng
        self._error: CandidateError | None = None

    def call(self, verb: int, args: Sequence[Any]) -> Any:
        return self._through(lambda: getattr(self._inner, self._verbs[verb])(*args))

    def call_many(self, verb: int, calls: Sequence[tuple[Any, ...]]) -> Any:
        return self._through(lambda: getattr(self._inner, f"{self._verbs[verb]}_many")(calls))

    def _through(self, ask: Callable[[], Any]) -> Any:
        if self._error is not None:
            raise self._error
        drawn = {what: self._rng.random() < chance for what, chance in self._chances.items()}  # all of them, so that one seed is one story
        if drawn["delay"]:
            time.sleep(self._delay_s)
        if drawn["host"]:
            raise JailUnavailable("the host failed, by chaos.")
        if drawn["death"]:
            raise self._ended("died", "its process was killed by chaos")
        answer = ask()
        if drawn["truncation"]:
            raise self._ended("type", "its answer was cut by chaos")
        if drawn["reordering"]:
            raise self._ended("protocol", "an answer to no question, by chaos")
        return answer

    def _ended(self, kind: str, words: str) -> CandidateError:
        self.close()
        self._error = CandidateError(words, kind)
        return self._error

    def close(self) -> None:
        self._inner.__exit__()
