from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.evolve.archive import ARCHIVES, Bandit, MixedArchive, ParetoArchive, StartsOnly, TopArchive, weights
from cloudchamber.evolve.model import Scored

NAMES = ("a", "b", "c")
VALUE = st.integers(0, 6).map(lambda n: n / 4)
ROWS = st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=25)


def made(number, row, names=NAMES, behaviour=(0.5, 0.5), trace=None, proposer="mutate"):
    scores = dict(zip(names, row, strict=True))
    score = math.fsum(scores.values()) / len(scores)
    return Scored(
        number, f"source {number}", proposer=proposer, status="scored", score=score, scores=scores, behaviour=behaviour,
        trace=f"trace {number}" if trace is None else trace,
    )  # fmt: skip


def filled(archive, rows, **fields):
    for number, row in enumerate(rows, 1):
        archive.add(made(number, row, **fields))
    return archive


@given(ROWS)
def test_pareto_fronts_equal_brute_force(rows):
    archive = filled(ParetoArchive(), rows)
    kept = {each.number for each in archive.members}
    for column, name in enumerate(NAMES):
        best = max(row[column] for row in rows)
        assert archive.fronts()[name] == {number for number, row in enumerate(rows, 1) if row[column] == best} & kept
        assert archive.fronts()[name]
    holders = {number for column in range(3) for number, row in enumerate(rows, 1) if row[column] == max(each[column] for each in rows)}
    assert kept == holders


@given(ROWS, st.integers(0, 99))
def test_parents_without_the_dominated_still_cover_every_front(rows, seed):
    archive = filled(ParetoArchive(), rows)
    rng = np.random.default_rng(seed)
    drawn = set()
    for _ in range(60):
        parents = archive.sample(rng)
        drawn.add(parents.main.number)
        assert len({each.number for each in parents.all}) == len(parents.all) <= 4
    # what remains after the dominated are gone: 60 draws of at most three are almost surely all of them, and each front holds one
    assert all(front & drawn for front in archive.fronts().values())


@pytest.mark.parametrize("name", [name for name in ARCHIVES if name != "starts"])
def test_members_are_bounded_for_thousands_of_candidates(name):
    rng = np.random.default_rng(3)
    archive = ARCHIVES[name]()
    most = 0
    for number in range(1, 3001):
        archive.add(made(number, rng.random(3), behaviour=tuple(rng.random(2))))
        most = max(most, len(archive.members)) if number % 100 == 0 else most
    assert most <= {"mixed": 24 + 3 + 36, "pareto": 3, "top": 8}[name]
    assert len(archive._traces) == len(archive.members)


@given(ROWS, st.data())
def test_remove_keeps_winners_right(rows, data):
    archive = filled(MixedArchive(top=50), rows)
    gone = data.draw(st.sets(st.integers(1, len(rows)), max_size=len(rows) - 1))
    for number in gone:
        archive.remove(number)
    left = {number: row for number, row in enumerate(rows, 1) if number not in gone}
    assert {each.number for each in archive.members} == set(left)
    for column, name in enumerate(NAMES):
        winner = archive._winners[name]
        assert winner.number in left and winner.scores[name] == max(row[column] for row in left.values())
    assert archive.members == sorted(archive.members, key=lambda each: (-each.score, each.number))


@pytest.mark.parametrize("name", [name for name in ARCHIVES if name != "starts"])
def test_a_twin_is_not_kept_and_is_taken_once_the_first_is_gone(name):
    archive = ARCHIVES[name]()
    assert archive.add(made(1, (1, 1, 1), trace="same"))
    assert not archive.add(made(2, (2, 2, 2), trace="same"))
    archive.remove(1)
    assert archive.members == [] and archive.add(made(3, (1, 1, 1), trace="same"))


def test_mixed_keeps_a_specialist_a_leader_and_a_strange_one():
    archive = MixedArchive(top=1)
    assert archive.add(made(1, (0.5, 0.5, 0.5)))
    assert archive.add(made(2, (0.9, 0.1, 0.1)))  # best on a
    assert archive.add(made(3, (0.2, 0.2, 0.2), behaviour=(0.9, 0.1)))  # the first of its cell
    assert not archive.add(made(4, (0.4, 0.4, 0.4)))
    assert archive.add(made(5, (0.6, 0.6, 0.6)))
    assert [each.number for each in archive.members] == [5, 2, 3] and archive.threshold == pytest.approx(0.6)


def test_behaviour_out_of_range_falls_in_the_last_cell():
    archive = MixedArchive()
    assert archive.add(made(1, (1, 1, 1), behaviour=(7.0, -3.0))) and (5, 0) in archive._grid


def test_threshold_is_open_while_there_is_room():
    archive = filled(TopArchive(top=3), [(0.1,) * 3, (0.2,) * 3])
    assert archive.threshold == -math.inf
    archive.add(made(3, (0.3,) * 3))
    assert archive.threshold == pytest.approx(0.1)
    assert not archive.add(made(4, (0.05,) * 3)) and archive.add(made(5, (0.15,) * 3))


def test_starts_only_draws_the_starting_policies():
    archive = StartsOnly(top=1)
    archive.add(made(1, (0.1,) * 3, proposer="start"))
    archive.add(made(2, (0.2,) * 3, proposer="start"))
    archive.add(made(3, (0.9,) * 3))
    rng = np.random.default_rng(1)
    assert {archive.sample(rng).main.number for _ in range(40)} == {1, 2} and archive.members[0].number == 3


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 500)), min_size=1, max_size=30))
def test_weights_are_between_zero_and_one_and_favour_the_better_and_the_childless(pairs):
    scores, children = [score for score, _ in pairs], [count for _, count in pairs]
    found = weights(scores, children)
    assert np.all(np.isfinite(found)) and np.all(found >= 0) and np.all(found <= 1)
    alike = weights(scores, [0] * len(pairs))
    order = np.argsort(scores, kind="stable")
    assert np.all(np.diff(alike[order]) >= -1e-12)
    assert np.all(found <= alike + 1e-12)


def test_weights_by_hand():
    assert weights([1.0, 2.0, 3.0], [0, 0, 3]) == pytest.approx([1 / (1 + math.exp(10)), 0.5, 1 / (1 + math.exp(-10)) / 2])


@given(ROWS, st.permutations(NAMES), st.sampled_from(["mixed", "pareto", "top"]), st.integers(0, 99))
def test_names_of_workloads_do_not_matter(rows, names, kind, seed):
    plain, renamed = filled(ARCHIVES[kind](), rows), filled(ARCHIVES[kind](), rows, names=tuple(names))
    assert [each.number for each in plain.members] == [each.number for each in renamed.members]
    drawn = [[each.number for each in archive.sample(np.random.default_rng(seed)).all] for archive in (plain, renamed)]
    assert drawn[0] == drawn[1]


def test_bandit_prefers_what_helps_and_follows_a_change():
    rng = np.random.default_rng(5)
    bandit = Bandit({"good": 1.0, "bad": 1.0})
    for helper in ("good", "bad"):
        used = {"good": 0, "bad": 0}
        for turn in range(400):
            name = bandit.choose(rng)
            bandit.reward(name, float(name == ("good" if helper == "good" else "bad")) * 0.8)
            used[name] += turn >= 200
        assert used[helper] > 140


def test_bandit_shares_turns_where_nothing_helps():
    rng = np.random.default_rng(5)
    bandit = Bandit({"often": 4.0, "seldom": 1.0})
    used = {"often": 0, "seldom": 0}
    for _ in range(1000):
        name = bandit.choose(rng)
        bandit.reward(name, 0.0)
        used[name] += 1
    assert 3 < used["often"] / used["seldom"] < 5


def test_bandit_chooses_among_the_allowed_and_ignores_strangers():
    bandit = Bandit({"a": 1.0, "b": 1.0})
    bandit.reward("external", 1.0)
    assert {bandit.choose(np.random.default_rng(seed), ("b",)) for seed in range(9)} == {"b"}
