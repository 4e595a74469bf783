"""Messages: what crosses the boundary between a world and a policy, and their one codec.

A message is a frozen, validated ``msgspec.Struct``; its arrays are read-only. On the wire it is MessagePack, in which an
array is (dtype, shape, bytes) and a ``numpy.random.Generator`` is its state, so any policy can be called in process,
recorded, replayed, or run behind a process boundary.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

import msgspec
import numpy as np

from .errors import InputError

T = TypeVar("T")

AnyFloat = Annotated[float, msgspec.Meta(extra={"finite": False})]  # a float of an action that may also be infinite; others must be finite


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
        return [value.dtype.str, value.shape, value.tobytes()]
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
    if kind is np.ndarray or typing.get_origin(kind) is np.ndarray:
        text, shape, data = value
        dtype = _dtype(text)
        array = np.frombuffer(data, dtype=dtype)
        if type(shape) is not list or shape != [array.size]:
            if len(shape) > 32 or not all(type(size) is int and 0 <= size < 2**40 for size in shape):
                raise ValueError(f"{shape!r} is not the shape of an array")
            if math.prod(shape) != array.size:
                raise ValueError(f"an array of shape {shape} does not have {array.size} items")
            array = array.reshape(shape)
        if dtype.kind in "bU":
            _check_bits(array)
        if not dtype.isnative:
            array = array.astype(dtype.newbyteorder("="))
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


@lru_cache(maxsize=256)
def _dtype(text: str) -> np.dtype[Any]:
    if not (isinstance(text, str) and _DTYPE.fullmatch(text)):
        raise ValueError(f"arrays of {text!r} are not accepted; use numbers, booleans or fixed-width strings")
    return np.dtype(text)


def _check_bits(array: np.ndarray) -> None:
    """Refuse bytes that are no value of the dtype: a "true" of 255 counts as 255 in a sum, and some text cannot be read."""
    if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise ValueError("an array of booleans holds bytes that are neither 0 nor 1")
    if array.dtype.kind == "U" and array.size:
        codes = array.ravel().view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes <= 0xDFFF)).any():
            raise ValueError("an array of text holds what is no character")


_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU][1-9][0-9]{0,4})")
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
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise InputError(f"not a valid {getattr(kind, '__name__', kind)}: {error}") from None


def check_finite(value: Any, kind: Any) -> None:
    """Check that no float in a decoded value is NaN or infinite, but where its field is annotated :data:`AnyFloat`.

    Raises
    ------
    InputError
        Naming the field.
    """
    walk = _finite_walk(kind)
    if walk is not None:
        walk(value, "")


_Walk = Callable[[Any, str], None]


def _number(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where.lstrip('.') or 'the answer'} is {value}; a finite number is needed.")


def _array(value: Any, where: str) -> None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fc" and not np.isfinite(value).all():
        raise InputError(f"{where.lstrip('.') or 'the answer'} holds NaN or infinity; finite numbers are needed.")


@lru_cache(maxsize=256)
def _finite_walk(kind: Any) -> _Walk | None:
    """A function that looks at every float of a type, None if it has none."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is float:
        return _number
    if kind is np.ndarray or origin is np.ndarray:
        return _array
    if origin is Annotated:
        exempt = any(isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("finite") is False for meta in args[1:])
        return None if exempt else _finite_walk(args[0])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _finite_struct(kind)
    if origin in (typing.Union, types.UnionType):
        return _finite_union(args)
    if origin is tuple and Ellipsis not in args:
        return _finite_fields({i: _finite_walk(arg) for i, arg in enumerate(args)}, lambda value, i: value[i])
    inner = [walk for walk in map(_finite_walk, args) if walk is not None]
    return _finite_items(inner) if inner else None


def _finite_struct(kind: Any) -> _Walk | None:
    hints = get_type_hints(kind, include_extras=True)
    return _finite_fields({name: _finite_walk(hints[name]) for name in kind.__struct_fields__}, getattr)


def _finite_fields(walks: dict[Any, _Walk | None], get: Callable[[Any, Any], Any]) -> _Walk | None:
    there = [(name, walk) for name, walk in walks.items() if walk is not None]

    def walk_fields(value: Any, where: str) -> None:
        for name, walk in there:
            walk(get(value, name), f"{where}.{name}")

    return walk_fields if there else None


def _finite_union(args: tuple[Any, ...]) -> _Walk | None:
    structs = {arg: _finite_walk(arg) for arg in args if isinstance(arg, type) and issubclass(arg, msgspec.Struct)}
    plain = [walk for arg in args if arg not in structs for walk in [_finite_walk(arg)] if walk is not None]
    if not plain and not any(structs.values()):
        return None

    def walk_union(value: Any, where: str) -> None:
        if type(value) in structs:
            walk = structs[type(value)]
            if walk is not None:
                walk(value, where)
        elif value is not None:
            for each in plain:
                each(value, where)

    return walk_union


def _finite_items(inner: list[_Walk]) -> _Walk:
    def walk_items(value: Any, where: str) -> None:
        items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        for item in items if isinstance(items, (list, tuple, set, frozenset)) else ():
            for walk in inner:
                walk(item, where + "[]")

    return walk_items
