"""Frames between a trusted world and a jailed policy, and the contract that says what may be in them.

A frame is ``<length u32> <sequence u32> <kind u8>`` and a body in core's codec. Kinds of a request: the verb's index, plus
``BATCH`` for a list of calls. Kinds of an answer: ``OK`` and the result, or ``RAISED`` and the error in words.
"""

from __future__ import annotations

import struct
import types
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

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
    """What a candidate raised: its kind (``crash`` or ``type``) and words."""

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
        self._arguments, self._results = [], []
        if not self.verbs:
            raise InputError(f"Protocol {protocol.__name__} has no methods, so no policy can be asked anything.")
        for verb in self.verbs:
            function = vars(protocol)[verb]
            names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
            hints = get_type_hints(function, include_extras=True)
            missing = [name for name in (*names, "return") if name not in hints]
            if missing:
                raise InputError(f"{protocol.__name__}.{verb} needs annotations for {', '.join(missing)}: the jail decodes by them.")
            for name in (*names, "return"):
                _check_travels(hints[name], f"{protocol.__name__}.{verb}, {name}")
            self._arguments.append(tuple[tuple(hints[name] for name in names)] if names else tuple[()])  # type: ignore[misc]
            self._results.append(hints["return"])

    def pack(self, args: Sequence[Any]) -> bytes:
        """The body of a request."""
        return encode(tuple(args))

    def unpack(self, verb: int, body: bytes) -> tuple[Any, ...]:
        """The arguments in the body of a request (or a list of them in a batch)."""
        if verb & BATCH:
            return decode(body, list[self._arguments[verb ^ BATCH]])  # type: ignore[misc, return-value]
        return decode(body, self._arguments[verb])  # type: ignore[no-any-return]

    def result(self, verb: int, body: bytes) -> Any:
        """The result in the body of an answer.

        Raises
        ------
        InputError
            If it is not of the verb's type, or holds NaN or infinity where that is not allowed.
        """
        kind = self._results[verb & ~BATCH]
        kind = list[kind] if verb & BATCH else kind
        value = decode(body, kind)
        check_finite(value, kind)
        return value


def frame(sequence: int, kind: int, body: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(len(body), sequence, kind) + body


_PLAIN = (int, float, bool, str, bytes, type(None), np.ndarray, np.random.Generator)


def _check_travels(kind: Any, where: str) -> None:
    origin, args = get_origin(kind), get_args(kind)
    if kind is None or kind in _PLAIN or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return
    if origin is np.ndarray or str(origin) == "typing.Literal":
        return
    if (
        str(origin) in ("typing.Union", "typing.Annotated")
        or origin in (types.UnionType, list, tuple, dict, set, frozenset)
        or hasattr(kind, "__metadata__")
    ):
        for arg in args:
            if arg is not Ellipsis and not isinstance(arg, msgspec.Meta):
                _check_travels(arg, where)
        return
    raise InputError(
        f"{where}: {kind!r} cannot cross the jail; use a Message, an array, a Generator, or numbers and text in tuples, lists or dicts."
    )
