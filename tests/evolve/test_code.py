from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.core.registry import load_study, study_names
from cloudchamber.evolve import code
from cloudchamber.evolve.subject import built_in

POLICY = '''"""Prices."""

from __future__ import annotations

import math
from functools import cache

from cloudchamber.core.policy import Policy, Real

SCALE = 2.0  # of all prices


@cache
def scaled(size: float) -> float:
    """Größe mal {shown}: 7."""
    return SCALE * size


class Base(Policy):
    """What both share."""


class Mine(Base):
    """Prices by „Größe“: 3 €."""

    _constraints = {"rate": Real(0, 100), "age_rate": Real(0, 9)}

    def __init__(self, rate=1.5, *, age_rate=4):
        self.rate, self.age_rate = rate, age_rate

    def price(self, item):
        text = """ä
        multi-line ö 5"""; usd = self.rate * scaled(item.size) + (len(text) * 0)  # ü 8
        return "€" and usd + 0.25


@cache
def unused():
    return 1


class Other(Base):
    """Another."""

    def price(self, item):
        return 12
'''
BUILT_IN = [(name, shown, source) for name in study_names() for shown, source in built_in(load_study(name))]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_spans_find_constants_behind_unicode_and_in_strings_of_many_lines(newline):
    text = code.Text(POLICY.replace("\n", newline))
    numbers = [node for node in ast.walk(text.tree) if isinstance(node, ast.Constant) and isinstance(node.value, (int, float))]
    assert len(numbers) == 11
    assert all(ast.literal_eval(text.of(node)) == node.value for node in numbers)


@given(st.lists(st.sampled_from(["ä", "€", "🙂", "\x0c", "\u2028", "\x85", "\x1c", "a", "'''", "\\n"]), max_size=12))
def test_spans_hold_whatever_a_comment_or_string_contains(letters):
    inside = "".join(letters)
    source = f"x = 1  # {inside}\ny = {inside!r}, 22; z = '''{inside.replace(chr(39), '')}''', 333\nw = 4444\n"
    text = code.Text(source)
    numbers = [node for node in ast.walk(text.tree) if isinstance(node, ast.Constant) and isinstance(node.value, int)]
    assert [text.of(node) for node in sorted(numbers, key=lambda node: node.value)] == ["1", "22", "333", "4444"]


@pytest.mark.parametrize(("study", "shown", "source"), BUILT_IN, ids=[f"{study}-{shown}" for study, shown, _ in BUILT_IN])
def test_every_span_of_every_built_in_policy_is_its_node(study, shown, source):
    text = code.Text(source)
    nodes = [node for node in ast.walk(text.tree) if hasattr(node, "lineno")]
    assert nodes and all(text.of(node) == ast.get_source_segment(source, node) for node in nodes[:: 1 + len(nodes) // 150])


@given(st.permutations(list(range(6))))
def test_edits_are_made_in_place_whatever_their_order(order):
    text = code.Text(POLICY)
    nodes = code.literals(text)[:6]
    edits = [(text.span(nodes[i]), f"{900 + i}") for i in order if i < len(nodes)]
    changed = code.literals(code.Text(text.replaced(edits)))
    assert [node.value for node in changed[: len(edits)]] == [900 + i for i in range(len(edits))]
    assert "# of all prices" in text.replaced(edits) and "# ü 8" in text.replaced(edits)


def test_lines_of_a_decorated_function_start_at_its_decorator_where_it_is_dropped():
    assert code.isolated(POLICY, "Mine", {}).count("@cache") == 1


def test_identity_is_equal_under_comments_docstrings_and_layout():
    other = (
        POLICY.replace('"""Another."""', '"""Said otherwise."""')
        .replace("  # of all prices", "")
        .replace("return 12", "return (\n            12\n        )")
    )
    other = other.replace("SCALE * size", "SCALE  *  (size)").replace("\n\n\n", "\n\n")
    assert other != POLICY and code.identity(other) == code.identity(POLICY)
    assert code.identity(POLICY.replace("return 12", "return 13")) != code.identity(POLICY)
    assert code.identity(POLICY.replace("multi-line", "many-line")) != code.identity(POLICY)


@pytest.mark.parametrize("source", ["class A:\n    '''Only a docstring.'''\n", "def f():\n    'doc'\n", "'''module'''\n", ""])
def test_bodies_of_nothing_but_a_docstring_have_a_normal_form(source):
    assert code.identity(source) == code.identity(code.normal_form(source))


@given(st.lists(st.floats(0.001, 1e6, allow_nan=False), min_size=20, max_size=20), st.integers(0, 10**6))
def test_skeleton_is_equal_under_changes_of_numbers(floats, whole):
    text = code.Text(POLICY)
    nodes = code.literals(text)
    new = [
        str(whole + i) if isinstance(node.value, int) else repr(value) for i, (node, value) in enumerate(zip(nodes, floats, strict=False))
    ]
    changed = text.replaced([(text.span(node), value) for node, value in zip(nodes, new, strict=True)])
    assert code.skeleton(changed) == code.skeleton(POLICY)


def test_skeleton_tells_structure_whole_numbers_and_constraints_apart():
    assert code.skeleton(POLICY.replace("SCALE * size", "SCALE + size")) != code.skeleton(POLICY)
    assert code.skeleton(POLICY.replace("age_rate=4", "age_rate=4.5")) != code.skeleton(POLICY)
    assert code.skeleton(POLICY.replace("Real(0, 100)", "Real(0, 50)")) != code.skeleton(POLICY)


def test_literals_are_neither_constraints_nor_booleans_nor_in_texts():
    source = "_constraints = {'a': 3}\nx = True\ny = f'{4}'\nassert 5 < 6\nraise ValueError(7)\nz: int = 8\n"
    assert [node.value for node in code.literals(code.Text(source))] == [8]


def test_only_marked_lines_are_open():
    source = "a = 1\n# EVOLVE-BLOCK-START\nb = 2\nc = '''\n# EVOLVE'''; d = 3\n# EVOLVE-BLOCK-END\ne = 4\n"
    assert [node.value for node in code.literals(code.Text(source))] == [2, 3]


def test_isolated_drops_other_classes_and_keeps_what_is_needed():
    alone = code.isolated(POLICY, "Mine", {})
    names = [node.name for node in ast.parse(alone).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert names == ["scaled", "Base", "Mine"] and "SCALE = 2.0  # of all prices" in alone


def test_isolated_writes_given_values_as_defaults():
    alone = code.isolated(POLICY, "Mine", {"rate": 2.75, "age_rate": -3})
    assert "rate=2.75, *, age_rate=-3" in alone and "# ü 8" in alone


def test_isolated_refuses_values_that_have_no_default_to_take_the_place_of():
    with pytest.raises(InputError, match="start from the class itself"):
        code.isolated(POLICY, "Mine", {"nonsense": 1})
    with pytest.raises(InputError, match="start from the class itself"):
        code.isolated(POLICY, "Other", {"rate": 1})


def test_isolated_names_the_classes_there_are_if_one_is_missing():
    with pytest.raises(InputError, match="no class 'Nobody' at its top level; there is: Base, Mine, Other"):
        code.isolated(POLICY, "Nobody", {})


def checked(imports, body="class A:\n    def price(self, item): ...\n"):
    code.check(f"{imports}\n{body}", ("reset", "price"), ("numpy", "numba"), "cloudchamber.spot")


@pytest.mark.parametrize(
    "allowed",
    [
        "import numpy as np", "from numpy.linalg import norm", "import numba", "import math, heapq, itertools",
        "from collections import deque", "from __future__ import annotations", "from cloudchamber.spot.model import Launch",
        "from cloudchamber.spot.policies.greedy import X",
        "from cloudchamber.spot import Decision", "from cloudchamber.core.policy import Policy", "from cloudchamber.core.jit import njit",
    ],
)  # fmt: skip
def test_imports_a_policy_may_have(allowed):
    checked(allowed)


@pytest.mark.parametrize(
    "forbidden",
    [
        "import os", "import os.path", "from os import path", "import sys", "import socket", "import subprocess", "import numpy, ctypes",
        "from .model import X", "from . import model", "from cloudchamber.spot.market import Market",
        "from cloudchamber.placement.model import X", "from cloudchamber.core.study import Study", "from cloudchamber.evolve import code",
        "import cloudchamber", "import requests",
        "def f():\n    import threading", "if 1:\n    from importlib import import_module", "from cloudchamber.spotty.model import X",
        "from cloudchamber.spot.study import SpotStudy", "import cloudchamber.corelike",
    ],
)  # fmt: skip
def test_imports_a_policy_may_not_have(forbidden):
    with pytest.raises(InputError, match="may not import"):
        checked(forbidden)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("class A:\n    def other(self): ...", "none"),
        ("class A:\n    def price(self, i): ...\nclass B:\n    def price(self, i): ...", "A, B"),
        ("def price(item): ...", "none"),
        ("class A(A):\n    pass", "none"),
    ],
)
def test_exactly_one_class_has_the_verbs(body, found):
    with pytest.raises(InputError, match=f"found {found}"):
        checked("", body)


def test_verbs_may_come_from_a_base_within_the_source():
    assert code.policy_classes(ast.parse("class A:\n    def price(self, i): ...\nclass B(A):\n    pass"), ("reset", "price")) == ["B"]


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(source):
    try:
        code.check(source, ("price",), (), "cloudchamber.spot")
    except InputError as error:
        assert str(error)
