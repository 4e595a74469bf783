from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Choice, Instance, Integer, Optional, Parameters, Policy, Real, Text, clone, is_clairvoyant


class Inner(Parameters):
    _constraints = {"depth": Integer(1, 9)}

    def __init__(self, depth=2):
        self.depth = depth


class Outer(Policy):
    _constraints = {"cut": Real(0, 1), "inner": Instance(Inner), "name": Optional(Text())}

    def __init__(self, cut=0.5, *, inner=Inner(), name=None):  # noqa: B008
        self.cut, self.inner, self.name = cut, inner, name


def test_repr_shows_only_what_differs_from_the_defaults():
    assert repr(Outer()) == "Outer()"
    assert repr(Outer(0.3, inner=Inner(5))) == "Outer(cut=0.3, inner=Inner(depth=5))"


def test_clone_copies_nested_parameters_and_forgets_learned_state():
    used = Outer(0.2, inner=Inner(3))
    used.reset("spec", None)
    copy = clone(used)
    assert copy.inner is not used.inner and copy.inner.depth == 3
    assert not hasattr(copy, "spec_")


def test_nested_parameters_are_validated_too():
    with pytest.raises(InputError, match=r"Inner: depth must be a whole number in \[1, 9\], got 99"):
        Outer(inner=Inner(99)).reset(None, None)


def test_outsiders_are_never_clairvoyant():
    class Sneaky(Policy):
        clairvoyant = True

    assert not is_clairvoyant(Sneaky())
    from cloudchamber.spot import Lifetime, Oracle, SkyNomad

    class MyLifetime(Lifetime):
        clairvoyant = True

    assert is_clairvoyant(SkyNomad(lifetime=Oracle())) and not is_clairvoyant(SkyNomad(lifetime=MyLifetime()))


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.none()))
def test_real_accepts_exactly_finite_numbers_in_range(value):
    allowed = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1
    assert Real(0, 1, strict=True).holds(value) == allowed


def test_choice_does_not_confuse_true_with_one():
    assert Choice(1, "a").holds(1) and not Choice(1, "a").holds(True)
