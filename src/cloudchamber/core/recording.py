"""A policy's decisions as messages: recorded in one process, checked or answered again in another."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, get_type_hints

from .errors import InputError
from .messages import Message, decode, encode
from .source import verbs_of


class Asked(Message, frozen=True):
    """One question and its answer: the verb, and the encoded arguments and result."""

    verb: str
    arguments: bytes
    answer: bytes


class Recording(Message, frozen=True):
    """All questions of one run, in order."""

    asked: tuple[Asked, ...]

    def save(self, path: Path) -> None:
        """Write it."""
        path.write_bytes(encode(self))

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read it.

        Raises
        ------
        InputError
            If the file is no recording.
        """
        return decode(path.read_bytes(), cls)

    def replay(self, policy: Any, protocol: type) -> int:
        """Ask a policy the same questions and compare its answers; return how many there were.

        Parameters
        ----------
        policy : object
            Of the class that was recorded; anew.
        protocol : type
            Whose verbs were asked; its annotations say what the arguments are.

        Raises
        ------
        InputError
            Naming the first question that it answers otherwise.
        """
        for number, each in enumerate(self.asked):
            arguments = decode(each.arguments, _arguments(protocol, each.verb))
            answer = encode(getattr(policy, each.verb)(*arguments))
            if answer != each.answer:
                raise InputError(f"question {number}, {each.verb}: recorded was {each.answer!r}, the policy answers {answer!r}.")
        return len(self.asked)


class Recorder:
    """Stands between a world and a policy and writes everything down.

    Parameters
    ----------
    policy : object
    protocol : type
        Its verbs are the policy's.
    """

    def __init__(self, policy: Any, protocol: type) -> None:
        self.policy = policy
        self._verbs = verbs_of(protocol)
        self._asked: list[Asked] = []

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb.startswith("_") or verb not in self._verbs:
            raise AttributeError(verb)
        return partial(self._ask, verb)

    def _ask(self, verb: str, *arguments: Any) -> Any:
        sent = encode(arguments)  # before the policy can draw from a Generator among them
        answer = getattr(self.policy, verb)(*arguments)
        self._asked.append(Asked(verb, sent, encode(answer)))
        return answer

    @property
    def recording(self) -> Recording:
        """What was asked so far."""
        return Recording(tuple(self._asked))


@cache
def _arguments(protocol: type, verb: str) -> Any:
    if verb not in verbs_of(protocol):
        raise InputError(f"a recording cannot hold {verb!r}; the verbs are {', '.join(verbs_of(protocol))}.")
    function = getattr(protocol, verb)
    hints = get_type_hints(function, include_extras=True)
    return tuple[tuple(hints[name] for name in function.__code__.co_varnames[1 : function.__code__.co_argcount])]  # type: ignore[misc]
