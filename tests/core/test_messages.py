from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message, decode, encode


class Pair(Message, frozen=True):
    name: str
    values: np.ndarray
    more: np.ndarray | None = None


class Left(Message, frozen=True, tag="left"):
    size: int


class Right(Message, frozen=True, tag="right"):
    size: float


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.int32, np.bool_, np.uint8, np.complex64]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
    )
)
def test_arrays_round_trip_bit_for_bit_and_read_only(array):
    again = decode(encode(Pair("x", array)), Pair).values
    assert again.dtype == array.dtype and again.shape == array.shape and again.tobytes() == array.tobytes()
    assert not again.flags.writeable


@given(st.integers(0, 2**63), st.sampled_from([np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM]))
def test_generators_continue_where_they_were(seed, bits):
    rng = np.random.Generator(bits(seed))
    rng.random(7)
    again = decode(encode(rng), np.random.Generator)
    assert again.random(5).tolist() == rng.random(5).tolist()


def test_arrays_in_messages_are_read_only_without_touching_the_callers():
    mine = np.zeros(3)
    message = Pair("x", mine)
    assert mine.flags.writeable and not message.values.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        message.values[0] = 1
    with pytest.raises(AttributeError):
        message.name = "y"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        encode({"name": 3, "values": [1]}),
        encode({"name": "x"}),
        encode({"name": "x", "values": ["<f8", [9], b"1"]}),
        encode({"name": "x", "values": ["|O", [1], b"12345678"]}),
        encode({"name": "x", "values": ["<f8", [0], b""], "extra": 1}),
    ],
)
def test_bytes_that_are_not_the_message_are_refused(data):
    with pytest.raises(InputError, match="not a valid Pair"):
        decode(data, Pair)


def test_unions_travel_by_tag():
    assert decode(encode((Left(3), Right(2.5))), tuple[Left | Right, ...]) == (Left(3), Right(2.5))


def test_arrays_of_objects_are_refused():
    with pytest.raises(InputError, match="dtype object"):
        encode(np.array([{}], dtype=object))
