"""What crosses the wall: every message of every Protocol round-trips; nothing a child sends raises anything but CandidateError."""

from __future__ import annotations

import socket
import struct
from typing import Any, Protocol, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.messages import Message, decode, encode
from cloudchamber.core.registry import load_study, study_names
from cloudchamber.jail import Limits
from cloudchamber.jail.proxy import Session, cleaned
from cloudchamber.jail.wire import HEADER, OK, Contract, frame

from .play import Guess, Player

PROTOCOLS = {name: load_study(name).protocol for name in study_names()} | {"play": Player}


def of(kind: Any) -> st.SearchStrategy:
    """Values of an annotated type, built by the same annotations as the jail decodes by."""
    origin, args = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):
        return of(args[0])
    if kind in (None, type(None)):
        return st.none()
    if kind is np.ndarray or origin is np.ndarray:
        return st.sampled_from([np.arange(6.0).reshape(2, 3), np.zeros(0), np.array([True, False]), np.array([1, 2], np.int32)])
    if kind is np.random.Generator:
        return st.integers(0, 9).map(np.random.default_rng)
    if str(origin) == "typing.Literal":
        return st.sampled_from(args)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return structs(kind)
    if origin is tuple and args[-1:] == (Ellipsis,):
        return st.lists(of(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(of, args))
    if origin is dict:
        return st.dictionaries(of(args[0]), of(args[1]), max_size=3)
    if origin in (list, set, frozenset):
        return st.lists(of(args[0]), max_size=3).map(origin if origin is list else lambda x: x)
    if args:
        return st.one_of(*map(of, args))
    simple = {
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.sampled_from([1.0, 2.0, 0.5]) | st.floats(allow_nan=False),
        bool: st.booleans(),
        str: st.text(max_size=9),
        bytes: st.binary(max_size=9),
    }
    return simple[kind]


def structs(kind: type) -> st.SearchStrategy:
    """Messages of a type; those its own checks refuse are left out."""

    def make(values: dict) -> Any:
        try:
            return kind(**values)
        except (ValueError, TypeError):
            return None

    hints = get_type_hints(kind, include_extras=True)
    return st.fixed_dictionaries({name: of(hints[name]) for name in kind.__struct_fields__}).map(make).filter(lambda x: x is not None)


def messages(protocol: type) -> set[type]:
    """Every Struct in a Protocol's arguments and results."""
    found: set[type] = set()

    def walk(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in found:
            found.add(kind)
            for inner in get_type_hints(kind, include_extras=True).values():
                walk(inner)
        for inner in get_args(kind):
            walk(inner)

    contract = Contract(protocol)
    for kind in (*contract._arguments, *contract._results):
        walk(kind)
    return found


EVERY = [pytest.param(kind, id=f"{name}-{kind.__name__}") for name, each in PROTOCOLS.items() for kind in sorted(messages(each), key=str)]


@pytest.mark.parametrize("kind", EVERY)
def test_every_message_of_every_protocol_round_trips(kind):
    @settings(suppress_health_check=list(HealthCheck))
    @given(of(kind))
    def check(message):
        data = encode(message)
        assert encode(decode(data, kind)) == data

    try:
        check()
    except Unsatisfiable:
        pytest.skip("its own checks refuse what hypothesis makes; real ones cross in test_equal")


class FakeChild:
    """The parent's view of a child, whose other end the test holds."""

    def __init__(self) -> None:
        self.channel, self.theirs = socket.socketpair()
        self.output, self.their_output = socket.socketpair()
        self.channel.setblocking(False)
        self.output.setblocking(False)
        self.ended, self.pid = None, None

    def end(self):
        for each in (self.channel, self.theirs, self.output, self.their_output):
            each.close()

    release = end


def asked(data, close, protocol=Player):
    """Send raw bytes as the child's answer to the call with ticket 77."""
    child = FakeChild()
    session = Session(child, Contract(protocol), Limits(call_s=0.02))
    session._tickets = [77]
    child.theirs.sendall(data)
    if close:
        child.theirs.shutdown(socket.SHUT_WR)
    try:
        return session.call(1, (None,))
    finally:
        child.end()


def only_candidate_errors(data, close):
    try:
        assert isinstance(asked(data, close), Guess)
    except CandidateError as error:
        assert error.kind in ("protocol", "type", "died", "timeout", "crash", "memory") and len(error.feedback) <= 4096


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_raise_only_candidate_errors(data, close):
    only_candidate_errors(data, close)


@given(st.binary(max_size=200), st.sampled_from([0, 1, 2, 255]))
def test_random_bodies_in_a_right_frame_raise_only_candidate_errors(body, kind):
    only_candidate_errors(frame(77, kind, body), True)


@given(of(Guess), st.data())
def test_mutations_of_a_right_answer_raise_only_candidate_errors(message, data):
    right = bytearray(frame(77, OK, encode(message)))
    for _ in range(data.draw(st.integers(1, 4))):
        right[data.draw(st.integers(0, len(right) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(right)))
    only_candidate_errors(bytes(right[:cut] if data.draw(st.booleans()) else right), True)


def test_right_answer_arrives_and_two_do_not():
    right = frame(77, OK, encode(Guess(2.0)))
    assert asked(right, False) == Guess(2.0)
    for wrong in (right + right, right + b"x", frame(78, OK, encode(Guess(2.0)))):
        with pytest.raises(CandidateError) as caught:
            asked(wrong, False)
        assert caught.value.kind == "protocol"


def test_answer_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(CandidateError, match="at most 1048576"):
        asked(HEADER.pack(2**32 - 1, 77, OK), False)


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 100_000 + b"\xc0",
        b"\x81\xa6number\xcb" + struct.pack(">d", float("nan")),
        b"\x81\xa6number\xcb" + struct.pack(">d", float("inf")),
        b"\x82\xa6number\x01\xa5extra\x01",
        b"\x80",
        b"\xc1",
    ],
)
def test_malformed_bodies_are_type_errors(body):
    with pytest.raises(CandidateError) as caught:
        asked(frame(77, OK, body), False)
    assert caught.value.kind == "type"


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("|b1", [1], b"\xff"),
        ("<U1", [1], b"\xff\xff\xff\x7f"),
        ("<U1", [1], b"\x00\xd8\x00\x00"),
        ("|O", [1], b"\0" * 8),
        ("<f8", [2**39, 2**39], b""),
        ("<f8", [-1], b"\0" * 8),
        ("<f8", [2], b"\0" * 8),
        ("<f8", "ab", b"\0" * 16),
        ("<f8", 7, b"\0" * 8),
        (7, [1], b"\0"),
        ("V8", [1], b"\0" * 8),
        ("<f8,<f8", [1], b"\0" * 16),
        ("<f8", [1], 5),
        ("<f8", [1], ["a"]),
    ],
)
def test_arrays_that_are_none_are_refused(dtype, shape, data):
    with pytest.raises(InputError):
        decode(encode([dtype, shape, data]), np.ndarray)


def test_foreign_byte_order_arrives_as_our_own():
    assert decode(encode(np.array([1.5, 2.5], ">f8")), np.ndarray).dtype == np.dtype("=f8")


class TestProtocolsThatCannotBeJailed:
    def refused(self, match, **verbs):
        protocol = type("Bad", (Protocol,), {"__module__": __name__, **verbs})
        with pytest.raises(InputError, match=match):
            Contract(protocol)

    def test_missing_annotation(self):
        def ask(self, x):
            pass

        self.refused("needs annotations for x, return", ask=ask)

    def test_any(self):
        def ask(self, x: int) -> object:
            pass

        self.refused("cannot cross the jail", ask=ask)

    def test_any_deep_inside_a_message(self):
        class Deep(Message, frozen=True):
            inner: dict[str, list[Any]]

        def ask(self, x: Deep) -> int:
            pass

        ask.__annotations__["x"] = Deep
        Deep.__annotations__["inner"] = dict[str, list[Any]]
        self.refused("cannot cross the jail", ask=ask)

    def test_generator_as_an_answer(self):
        def ask(self) -> np.random.Generator:
            pass

        self.refused("not come out", ask=ask)

    def test_keyword_only(self):
        def ask(self, *, x: int) -> int:
            pass

        self.refused("plain arguments only", ask=ask)

    def test_no_verbs(self):
        self.refused("no methods")


def test_untrusted_text_loses_escapes_and_direction_marks():
    assert cleaned("a\x1b[31mb\u202ec\x07\r\nd\u2066é") == "a[31mbc\ndé"
