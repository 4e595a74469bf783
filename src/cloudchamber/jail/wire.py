"""Frames between a trusted world and a jailed policy, and the contract that says what may be in them.

A frame is ``<length u32> <ticket u32> <kind u8>`` and a body in core's codec. Kinds of a request: the verb's index, plus
``BATCH`` for a list of calls. Kinds of an answer: ``OK`` and the result, or ``RAISED`` and the error in words. The ticket is drawn
for each request and comes back with its answer, so an answer can be neither sent before the question nor kept for the next one.
"""

from __future__ import annotations

import inspect
import struct
import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import check_finite, decode, encode
from cloudchamber.core.source import verbs_of

HEADER = struct.Struct("<IIB")
LOAD, BATCH = 0x7F, 0x80
OK, RAISED = 0, 1
MAX_REQUEST = 256 << 20


class Raised(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a candidate raised: its kind (``crash``, ``type``, ``memory``, ``input``) and words."""

    kind: str
    message: str
    traceback: str = ""


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first request: the source and which policy of it to make."""

    source: str
    name: str | None
    path: str


class Contract:
    """A Protocol as both sides of a jail read it: verbs in order, types of arguments and results.

    Parameters
    ----------
    protocol : type

    Raises
    ------
    InputError
        If a verb has an argument or result that cannot travel as a message.
    """

    def __init__(self, protocol: type) -> None:
        self.protocol = protocol
        self.verbs = verbs_of(protocol)
        self._arguments: list[Any] = []
        self._results: list[Any] = []
        if not self.verbs:
            raise InputError(f"Protocol {protocol.__name__} has no methods, so no policy can be asked anything.")
        for verb in self.verbs:
            function = getattr(protocol, verb)
            names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
            hints = get_type_hints(function, include_extras=True)
            missing = [name for name in (*names, "return") if name not in hints]
            if missing:
                raise InputError(f"{protocol.__name__}.{verb} needs annotations for {', '.join(missing)}: the jail decodes by them.")
            if len(names) != len(inspect.signature(function).parameters) - 1:
                raise InputError(f"{protocol.__name__}.{verb} must take plain arguments only, no * and no keyword-only ones.")
            for name in (*names, "return"):
                _check_travels(hints[name], f"{protocol.__name__}.{verb}, {name}", is_result=name == "return")
            arguments: Any = tuple[tuple(hints[name] for name in names)] if names else tuple[()]  # type: ignore[misc]
            self._arguments.append(arguments)
            self._results.append(hints["return"])

    def pack(self, args: Sequence[Any]) -> bytes:
        """The body of a request."""
        return encode(tuple(args))

    def unpack(self, verb: int, body: bytes) -> tuple[Any, ...]:
        """The arguments in the body of a request (or a list of them in a batch)."""
        kind = self._arguments[verb & ~BATCH]
        found: tuple[Any, ...] = decode(body, _list_of(kind) if verb & BATCH else kind)
        return found

    def result(self, verb: int, body: bytes) -> Any:
        """The result in the body of an answer.

        Raises
        ------
        InputError
            If it is not of the verb's type, or holds NaN or infinity where that is not allowed.
        """
        kind = self._results[verb & ~BATCH]
        if verb & BATCH:
            kind = _list_of(kind)
        value = decode(body, kind)
        check_finite(value, kind)
        return value


@lru_cache(maxsize=256)
def _list_of(kind: Any) -> Any:
    return list[kind]


def frame(ticket: int, kind: int, body: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(len(body), ticket, kind) + body


_PLAIN = (int, float, bool, str, bytes, type(None), np.ndarray, np.random.Generator)


def _check_travels(kind: Any, where: str, *, is_result: bool, within: tuple[Any, ...] = ()) -> None:
    origin, args = get_origin(kind), get_args(kind)
    if kind is np.random.Generator and is_result:
        raise InputError(f"{where}: a Generator may go into the jail but not come out of it.")
    if kind is None or kind in _PLAIN or origin is np.ndarray or origin is Literal:
        return
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind in within:
            raise InputError(f"{where}: {kind.__name__} holds itself; what crosses the jail must have a fixed depth.")
        if is_result and not kind.__struct_config__.forbid_unknown_fields:
            raise InputError(f"{where}: {kind.__name__} takes unknown fields; derive it from cloudchamber.core.messages.Message.")
        for field, inner in get_type_hints(kind, include_extras=True).items():
            if field in kind.__struct_fields__:
                _check_travels(inner, f"{where}.{field}", is_result=is_result, within=(*within, kind))
        return
    if origin in (Union, types.UnionType, list, tuple, dict, set, frozenset, Sequence, Mapping) or hasattr(kind, "__metadata__"):
        for arg in args:
            if arg is not Ellipsis and not isinstance(arg, msgspec.Meta):
                _check_travels(arg, where, is_result=is_result, within=within)
        return
    raise InputError(
        f"{where}: {kind!r} cannot cross the jail; use a Message, an array, a Generator, or numbers and text in tuples, lists or dicts."
    )
