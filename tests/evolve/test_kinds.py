from __future__ import annotations

import ast

import numpy as np
import pytest

from cloudchamber.core.registry import load_study
from cloudchamber.evolve import code
from cloudchamber.evolve.proposers.kinds import Kinds
from cloudchamber.evolve.proposers.mutate import add_like, everywhere
from cloudchamber.evolve.proposers.scope import features, is_numeric, like, sites
from cloudchamber.evolve.subject import problem_of

PROBLEM = problem_of(load_study("placement"))
SOURCE = """
class Mine:
    def place(self, instance):
        left_gb = instance.gpu_memory_gb - held_gb[0]
        demand, limit, row, column = instance.gpus, 4.0, 1, 2
        load = table[row, column] + 2 * demand
        best = limit if demand < limit else load
        order = sorted(range(9), key=lambda i: price[i] / share[i], reverse=True)
        return best / left_gb
"""


@pytest.mark.parametrize(
    ("one", "other", "are_alike"),
    [
        ("left_gb", "instance.gpu_memory_gb", True),  # assigned
        ("left_gb", "model.size_gb", True),  # named alike
        ("load", "demand", True),  # added
        ("table[i, j]", "limit", True),  # through what each was compared with
        ("-3 * demand", "max(load, 1)", True),
        ("load", "left_gb", False),
        ("demand / left_gb", "demand", False),
        ("3", "demand", False),
    ],
)
def test_kinds_follow_what_is_added_compared_and_assigned(one, other, are_alike):
    assert Kinds(ast.parse(SOURCE)).are_alike(one, other) is are_alike


@pytest.mark.parametrize(
    ("first", "second", "are_alike"), [("time_s", "job.deadline_s", True), ("spot_usd_h", "time_h", False), ("class_s", "class_ms", False)]
)
def test_names_with_one_unit_are_alike(first, second, are_alike):
    assert Kinds(ast.parse("")).are_alike(first, second) is are_alike


def test_only_like_things_are_added():
    text = code.Text(SOURCE)
    edits = [add_like(text, PROBLEM, np.random.default_rng(i)) for i in range(80)]
    made = {(SOURCE[edit[0].start : edit[0].end], edit[1]) for edit in edits if edit}
    assert ("held_gb[0]", "(held_gb[0] + instance.gpu_memory_gb)") in made
    kinds = Kinds(text.tree)
    for new in (ast.parse(new, mode="eval").body for _, new in made):
        parts = (new.left, new.right) if isinstance(new, ast.BinOp) else new.args
        assert kinds.of(parts[0]) == kinds.of(parts[1]) != ""


def test_what_is_the_same_for_all_is_no_part_of_a_sort_key():
    text = code.Text(SOURCE)
    keys = [site for site in sites(text, ast.Subscript, ast.BinOp) if isinstance(site.function, ast.Lambda) and is_numeric(site)]
    assert keys
    for site in keys:
        assert all("[i]" in each for each in features(text, site, PROBLEM))


def test_items_of_a_table_with_two_indices_are_numbers():
    text = code.Text(SOURCE)
    item = next(site for site in sites(text, ast.Subscript) if text.of(site.node) == "table[row, column]")
    assert is_numeric(item) and "2 * demand" in like(text, item, features(text, item, PROBLEM))


def test_a_rule_that_stands_twice_is_found_in_both_places():
    source = "class A:\n    def place(self, a, b, c):\n        if a * b < c:\n            c = c + a * b\n        return c * 1.0\n"
    text = code.Text(source)
    first, second = (text.span(site.node) for site in sites(text, ast.BinOp) if text.of(site.node) == "a * b")
    assert everywhere(text, first) == [first, second] and everywhere(text, second) == [second]
