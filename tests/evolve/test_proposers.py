from __future__ import annotations

import ast

import numpy as np
import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.core.registry import load_study, study_names
from cloudchamber.evolve import MutateAST, RandomRestart, Scored, SpliceAST, TuneLiterals, code
from cloudchamber.evolve.model import Context
from cloudchamber.evolve.subject import built_in, home_of, problem_of

STUDIES = {name: load_study(name) for name in study_names()}
BUILT_IN = {name: dict(built_in(study)) for name, study in STUDIES.items()}


class NoHistory:
    def of_skeleton(self, skeleton, after=0):
        return []


class History:
    def __init__(self, told):
        self._told = told

    def of_skeleton(self, skeleton, after=0):
        return [each for each in self._told if each.number > after and code.skeleton(each.source) == skeleton]


def context(study, number=0, history=None):
    sources = list(BUILT_IN[study].items())
    starts = tuple(Scored(0, source, note=name) for name, source in sources)
    name, source = sources[number % len(sources)]
    parents = (Scored(1, source, note=name, status="archived", score=0.5),)
    return Context(parents, starts, history or NoHistory(), problem_of(STUDIES[study]))


@pytest.mark.parametrize("make", [MutateAST, SpliceAST, RandomRestart, TuneLiterals], ids=lambda each: each.__name__)
@pytest.mark.parametrize("study", STUDIES)
def test_every_proposal_parses_and_passes_or_fails_stage_zero_cleanly(study, make):
    proposer, rng, passed, made = make(), np.random.default_rng(3), 0, 0
    for i in range(10):
        proposal = proposer.propose(context(study, i), rng)
        if proposal is None:
            continue
        made += 1
        ast.parse(proposal.source)
        try:
            code.check(proposal.source, problem_of(STUDIES[study]).verbs, STUDIES[study].libraries, home_of(STUDIES[study]))
            passed += 1
        except InputError:
            pass
    assert made >= (1 if make is TuneLiterals else 3) and passed >= made * 0.6  # few policies of a study may have a number to tune


@pytest.mark.parametrize("make", [MutateAST, SpliceAST, TuneLiterals], ids=lambda each: each.__name__)
def test_same_draw_same_proposal(make):
    first, second = (make().propose(context("placement", 3), np.random.default_rng(5)) for _ in range(2))
    assert first == second


def test_comments_outside_an_edit_stay():
    source = "# the first line\n" + BUILT_IN["placement"]["PrismGreedy"]
    starts = (Scored(1, source, status="archived", score=0.5),)
    rng = np.random.default_rng(1)
    made = [MutateAST().propose(Context(starts, (), NoHistory(), problem_of(STUDIES["placement"])), rng) for _ in range(30)]
    kept = [each for each in made if each is not None]
    assert kept and all(each.source.startswith("# the first line\n") for each in kept)
    assert sum("# demand placed so far" in each.source for each in kept) > len(kept) / 2


def test_every_part_of_a_sort_key_may_change():
    parents = (Scored(1, BUILT_IN["engine"]["FCFS"], status="archived", score=0.5),)
    rng = np.random.default_rng(1)
    made = [MutateAST().propose(Context(parents, (), NoHistory(), problem_of(STUDIES["engine"])), rng) for _ in range(200)]
    shown = "".join(each.source for each in made if each is not None)
    assert "r.is_preempted, r.n_input" in shown and "r.n_cached_now" in shown


def test_whole_numbers_stay_whole():
    source = "class A:\n    def place(self, instance):\n        return 10 * instance.gpus + 0.5\n"
    starts = (Scored(1, source, status="archived", score=0.5),)
    rng = np.random.default_rng(1)
    changed = set()
    for _ in range(40):
        made = TuneLiterals().propose(Context(starts, (), NoHistory(), problem_of(STUDIES["placement"])), rng)
        if made is None:  # it drew the numbers that are there
            continue
        values = [node.value for node in code.literals(code.Text(made.source))]
        assert isinstance(values[0], int) and isinstance(values[1], float)
        changed.add(values[0])
    assert len(changed) > 3


def test_tuner_is_a_fold_over_what_was_told():
    source = BUILT_IN["placement"]["PrismGreedy"]
    told, rng, tuner = [Scored(1, source, status="archived", score=0.5)], np.random.default_rng(2), TuneLiterals()
    problem = problem_of(STUDIES["placement"])
    for number in range(2, 40):
        made = tuner.propose(Context((told[0],), (), History(told), problem), rng)
        if made is not None:
            told.append(Scored(number, made.source, (1,), "tune", status="scored", score=float(rng.random())))
    old = tuner.propose(Context((told[0],), (), History(told), problem), np.random.default_rng(9))
    new = TuneLiterals().propose(Context((told[0],), (), History(told), problem), np.random.default_rng(9))
    assert old == new


def test_tuner_finds_the_rate(search_on):
    search = search_on(60, proposers=("tune",), workloads=("young",))
    search.run()
    assert search.best().score > search.starts[0].score
