"""Messages: what crosses the boundary between a world and a policy, and their one codec.

A message is a frozen, validated ``msgspec.Struct``; its arrays are read-only. On the wire it is MessagePack, in which an
array is (dtype, shape, bytes) and a ``numpy.random.Generator`` is its state, so any policy can be called in process,
recorded, replayed, or run behind a process boundary.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, TypeVar, get_type_hints

import msgspec
import numpy as np

from .errors import InputError

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every observation, action and specification.

    Subclass it with annotated fields. Fields annotated ``np.ndarray`` (optional or not) are made read-only views.
    Equality of messages that carry arrays is equality of their encoded bytes: use :func:`encode`.

    Examples
    --------
    >>> class Price(Message, frozen=True):
    ...     usd_h: np.ndarray
    >>> Price(np.array([1.0, 2.0])).usd_h.flags.writeable
    False
    """

    _array_fields: ClassVar[tuple[str, ...] | None] = None

    def __post_init__(self) -> None:
        cls = type(self)
        names = cls.__dict__.get("_array_fields")
        if names is None:
            names = cls._array_fields = _arrays_of(cls)
        for name in names:
            array = getattr(self, name)
            if array is not None and array.flags.writeable:
                view = array.view()
                view.flags.writeable = False
                msgspec.structs.force_setattr(self, name, view)


def _arrays_of(cls: type) -> tuple[str, ...]:
    hints = get_type_hints(cls)
    return tuple(name for name in cls.__struct_fields__ if "ndarray" in str(hints[name]))  # type: ignore[attr-defined]


def _to_wire(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise InputError(f"an array of dtype {value.dtype} cannot be sent; use numbers, booleans or fixed-width strings.")
        return [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]
    if isinstance(value, np.random.Generator):
        return _plain(value.bit_generator.state)
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"cannot encode {type(value).__name__}")


def _plain(state: Any) -> Any:
    """Bit-generator state in plain values, its 128-bit integers as text, since MessagePack stops at 64 bits."""
    if isinstance(state, dict):
        return {key: _plain(item) for key, item in state.items()}
    if isinstance(state, np.ndarray):
        return {"array": state.tolist(), "dtype": state.dtype.str}
    return {"int": str(state)} if isinstance(state, int) else state


def _unplain(state: Any) -> Any:
    if isinstance(state, dict):
        if set(state) == {"int"}:
            return int(state["int"])
        if set(state) == {"array", "dtype"}:
            return np.array(state["array"], dtype=np.dtype(state["dtype"]))
        return {key: _unplain(item) for key, item in state.items()}
    return state


def _from_wire(kind: type, value: Any) -> Any:
    if kind is np.ndarray:
        dtype, shape, data = value
        if np.dtype(dtype).hasobject:
            raise ValueError("arrays of objects are not accepted")
        array = np.frombuffer(data, dtype=np.dtype(dtype)).reshape(shape)
        array.flags.writeable = False
        return array
    if kind is np.random.Generator:
        state = _unplain(value)
        generators = {
            "PCG64": np.random.PCG64,
            "PCG64DXSM": np.random.PCG64DXSM,
            "MT19937": np.random.MT19937,
            "Philox": np.random.Philox,
            "SFC64": np.random.SFC64,
        }
        bits = generators[state["bit_generator"]]()
        bits.state = state
        return np.random.Generator(bits)
    raise NotImplementedError(f"cannot decode {kind!r}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_wire)


@lru_cache(maxsize=256)
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind, dec_hook=_from_wire)


def encode(value: Any) -> bytes:
    """Return the bytes of a message, array, Generator, or a container of them.

    Raises
    ------
    InputError
        If an array holds Python objects.
    """
    return _encoder.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """Return the ``kind`` that ``data`` encodes, every field checked against its annotation.

    Raises
    ------
    InputError
        If the bytes are not a valid ``kind`` (wrong type, unknown or missing field).
    """
    try:
        return _decoder(kind).decode(data)  # type: ignore[arg-type, no-any-return]
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"not a valid {getattr(kind, '__name__', kind)}: {error}") from None
