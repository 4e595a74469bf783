from __future__ import annotations

import contextlib
import json
import sqlite3

import numpy as np
import pytest

from cloudchamber.core.errors import InputError, UnknownName
from cloudchamber.evolve import Budget, BudgetSpent, Proposal, ProposerUnavailable, Search, Settings, resume
from cloudchamber.evolve.store import Store, StoreFault

from .toy.study import PricingStudy

BETTER = """
from cloudchamber.core.policy import Policy
from tests.evolve.toy.model import Price

class Better(Policy):
    def price(self, item):
        return Price(2 * item.size + {rate} * item.age)
"""
GLOBAL = "import random\n" + BETTER.format(rate="random.SystemRandom().random()")


def told(search):
    return search.store.candidates("task IS NOT NULL")


def test_search_improves_on_its_start(search_on):
    search = search_on(60)
    search.run()
    assert search.best().score > search.starts[0].score + 0.05
    assert search.best().validation > search.starts[0].validation


def test_every_told_candidate_is_void_or_valid_or_rejected(search_on):
    search = search_on(40)
    search.run()
    counts = dict(search.store.counts())
    assert sum(counts.values()) == len(told(search)) + len(search.starts)
    assert set(counts) <= {"void", "scored", "archived", "rejected"}
    assert search.evaluations == 40 == sum(each.status != "rejected" for each in told(search))


def test_same_seed_same_candidates(search_on):
    first, second = search_on(25), search_on(25)
    first.run()
    second.run()
    assert first.store.dump() == second.store.dump()
    other = search_on(25, seed=8)
    other.run()
    assert other.store.dump() != first.store.dump()


def test_order_of_workloads_does_not_change_scores(search_on):
    scores = []
    for names in (("young", "old"), ("old", "young")):
        search = search_on(1, workloads=names, seed=3)
        points = {(point.name, point.seed) for point in search.splits.training}
        task = search.ask()[0]
        scores.append(search.tell(task.id, BETTER.format(rate=1)).score)
        assert {name for name, _ in points} == {"young", "old"}
    # other draws, since seeds go by position; the quality of a policy whose error is a fixed share of age differs little
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


def test_tell_scores_and_finds_the_best(search_on):
    search = search_on()
    task = search.ask()[0]
    verdict = search.tell(task.id, BETTER.format(rate=3.0), note="looks at the age")
    assert verdict.status == "archived" and verdict.is_best and verdict.score == pytest.approx(1.0)
    assert search.store.candidate(verdict.candidate).note == "looks at the age"


def test_told_twice_is_refused_and_counted_once(search_on):
    search = search_on()
    task = search.ask()[0]
    search.tell(task.id, BETTER.format(rate=3.0))
    with pytest.raises(InputError, match="told already"):
        search.tell(task.id, BETTER.format(rate=2.0))
    assert search.evaluations == 1


def test_late_answer_is_taken_once(search_on, monkeypatch):
    search = search_on()
    now_s = 1000.0
    monkeypatch.setattr("cloudchamber.evolve.search.time.time", lambda: now_s)
    first = search.ask(lease_s=60)[0]
    now_s += 59
    other = search.ask(lease_s=600)[0]
    assert other.id != first.id
    now_s += 2
    again, fresh = search.ask(2)
    assert (again.id, again.parents) == (first.id, first.parents) and fresh.id not in (first.id, other.id)
    assert search.ask()[0].id not in (first.id, other.id, fresh.id)  # its new lease runs
    assert search.tell(first.id, BETTER.format(rate=1.0)).status in ("scored", "archived")
    with pytest.raises(InputError, match="told already"):
        search.tell(again.id, BETTER.format(rate=2.0))
    now_s += 1e6
    assert {each.id for each in search.ask(9)} >= {other.id, fresh.id} and search.evaluations == 1


def test_lease_must_be_above_zero(search_on):
    with pytest.raises(InputError, match="lease_s must be above 0"):
        search_on().ask(lease_s=0)


def test_unknown_task_is_refused(search_on):
    with pytest.raises(InputError, match="no task 'x'"):
        search_on().tell("x", "")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("class A:\n  def", "not valid Python"),
        ("import socket\n" + BETTER.format(rate=1), "may not import 'socket'"),
        ("from cloudchamber.spot.market import Market\n" + BETTER.format(rate=1), "may not import"),
        ("x = 1", "expected one class"),
        ("#" * 70_000, "at most 65536"),
        ("\ud800", "expected one class"),
        ("(" * 3000, "cannot be parsed"),
    ],
)
def test_stage_zero_says_what_to_change_and_costs_no_evaluation(search_on, source, reason):
    search = search_on()
    verdict = search.tell(search.ask()[0].id, source)
    assert verdict.status == "rejected" and search.evaluations == 0
    assert reason in verdict.reason or "not valid Python" in verdict.reason


def test_the_same_policy_in_other_words_is_a_duplicate(search_on):
    search = search_on()
    search.tell(search.ask()[0].id, BETTER.format(rate=1.0))
    same = '"""Another docstring."""\n' + BETTER.format(rate=1.0).replace("return", "# a comment\n        return")
    verdict = search.tell(search.ask()[0].id, same)
    assert verdict.status == "rejected" and "told before" in verdict.reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (BETTER.format(rate="no_such_name"), "NameError"),
        (BETTER.format(rate="float('nan')"), "finite"),
        (BETTER.format(rate="1e9"), "dearest"),
        (BETTER.replace("Price(2", "str(2").format(rate=1), "price()"),
        (GLOBAL, "not deterministic"),
        (BETTER.format(rate="(_ for _ in ()).throw(SystemExit)"), "SystemExit"),
    ],
)
def test_broken_policies_are_void_never_zero(search_on, source, reason):
    search = search_on()
    verdict = search.tell(search.ask()[0].id, source)
    assert verdict.status == "void" and verdict.score is None and reason in verdict.reason
    assert search.best().proposer == "start"


def test_policy_that_is_never_asked_is_void(search_on):
    class Deaf(PricingStudy):
        def trial(self, policy, workload, seed):
            from cloudchamber.core.outcome import Outcome

            return Outcome({"cost": 2.0, "dearest": 1.0, "spread": 0.0})

    with pytest.raises(InputError, match="never asked"):
        search_on(study=Deaf())


def test_better_than_the_bound_is_void(search_on):
    class Generous(PricingStudy):
        def bound(self, workload, seed):
            from cloudchamber.core.outcome import Bound

            return Bound(1.5, True)

    search = search_on(study=Generous())
    verdict = search.tell(search.ask()[0].id, BETTER.format(rate=3.0))
    assert verdict.status == "void" and "better than the bound" in verdict.reason


def test_budget_is_never_exceeded(search_on):
    search = search_on(2)
    tasks = search.ask(3)
    for rate, task in enumerate(tasks[:2]):
        search.tell(task.id, BETTER.format(rate=rate))
    with pytest.raises(BudgetSpent, match="2 of 2"):
        search.tell(tasks[2].id, BETTER.format(rate=9))
    with pytest.raises(BudgetSpent):
        search.ask()


def test_wall_budget_ends_a_run(search_on):
    search = search_on(10_000)
    search.budget = Budget(10_000, wall_s=search.wall_s + 0.5)
    search.run()
    assert search.left() == 0 and search.evaluations < 10_000


@pytest.mark.parametrize("bad", [{"evaluations": 0}, {"evaluations": 2.5}, {"usd": -1}, {"wall_s": float("nan")}, {"tokens": 0}])
def test_budgets_must_be_above_zero(bad):
    with pytest.raises(InputError, match="budget"):
        Budget(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"proposers": ("nonsense",)},
        {"archive": "nonsense"},
        {"proposers": ()},
        {"trials": (1, 1, 1)},
        {"trials": (0, 1, 2)},
        {"trials": (1, 1)},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError):
        Settings(**bad)


def test_unknown_start_names_the_nearest(search_on):
    with pytest.raises(UnknownName, match="BySize"):
        search_on(start="BySise")


def test_starts_from_a_file_and_from_parameters(search_on, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(BETTER.format(rate=2.5))
    assert search_on(start=str(file)).starts[0].score > search_on().starts[0].score
    assert "rate=1.5" in search_on(start="BySize(rate=1.5)").starts[0].source


def test_start_that_is_void_says_why(search_on, tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(BETTER.format(rate="no_such_name"))
    with pytest.raises(InputError, match="no starting policy gives a valid result.*no_such_name"):
        search_on(start=str(file))


def test_hidden_trials_are_disjoint_and_their_feedback_is_kept_nowhere(search_on):
    search = search_on(15, workloads=("young", "old"))
    search.run()
    seeds = {
        name: {(p.name, p.seed) for p in points}
        for name, points in vars(search.splits).items()
        if name in ("training", "validation", "held_out")
    }
    assert not (seeds["training"] & seeds["validation"] or seeds["training"] & seeds["held_out"] or seeds["validation"] & seeds["held_out"])
    rows = search.store._db.execute("SELECT split, feedback FROM trial").fetchall()
    assert all(feedback == "" for split, feedback in rows if split == "validation")
    assert any(feedback for split, feedback in rows if split == "training")


def test_finite_set_is_cut_by_instance(search_on):
    search = search_on(1, workloads=("few",), trials=(9, 9, 9))
    cut = [
        {point.workload.instances for point in points}
        for points in (search.splits.training, search.splits.validation, search.splits.held_out)
    ]
    assert cut == [{(0, 1, 2, 3)}, {(4, 5)}, {(6, 7)}]


def test_set_too_small_without_a_twin_is_refused(search_on):
    with pytest.raises(InputError, match="too small to hold trials out"):
        search_on(1, workloads=("tiny",))


class Dead:
    """A proposer that works only now and then."""

    def __init__(self, name, is_dead=lambda calls: True):
        self.name, self.calls, self._is_dead = name, 0, is_dead

    def propose(self, context, rng):
        self.calls += 1
        if self._is_dead(self.calls):
            raise ProposerUnavailable("nobody answers")
        return Proposal(BETTER.format(rate=float(rng.uniform(0, 5))), (context.parents[0].number,), "a new rate")


def test_dead_proposer_costs_no_evaluation(monkeypatch):
    proposers = {"dead": Dead("dead"), "alive": Dead("alive", lambda calls: False)}
    with Search(
        PricingStudy(), Settings(start="BySize", trials=(1, 1, 2), seed=1, jail="none"), budget=Budget(12), proposers=proposers
    ) as search:
        search.run()
        assert search.evaluations == 12 and proposers["dead"].calls >= 1
        assert {each.proposer for each in told(search)} == {"alive"}


def test_run_stops_when_nobody_answers_and_goes_on_later(monkeypatch, tmp_path):
    monkeypatch.setattr("cloudchamber.evolve.search.PATIENCE_S", 0.5)
    settings = Settings(start="BySize", trials=(1, 1, 2), seed=1, jail="none")
    with (
        Search(PricingStudy(), settings, store=tmp_path / "run.db", budget=Budget(5), proposers={"dead": Dead("dead")}) as search,
        pytest.raises(ProposerUnavailable, match="resume"),
    ):
        search.run()
    with Search(
        PricingStudy(), settings, store=tmp_path / "run.db", budget=Budget(5), proposers={"alive": Dead("alive", lambda n: False)}
    ) as search:
        search.run()
        assert search.evaluations == 5


def test_resumed_run_ends_as_an_undisturbed_one(search_on, tmp_path):
    whole = search_on(30, "whole.db")
    whole.run()
    part = search_on(11, "part.db")
    part.run()
    part.close()
    with resume(tmp_path / "part.db", study=PricingStudy(), budget=Budget(30)) as search:
        search.run()
        assert search.store.dump() == whole.store.dump()


def test_two_writers_are_refused_and_readers_are_not(search_on, tmp_path):
    search = search_on(3, "run.db")
    with pytest.raises(InputError, match="another process is writing"):
        Store(tmp_path / "run.db")
    assert Store(tmp_path / "run.db", is_reader=True).counts() == search.store.counts()


def test_run_of_another_verifier_is_refused(search_on, tmp_path):
    search = search_on(1, "run.db")
    search.store["verifier"] = "another"
    search.close()
    with pytest.raises(InputError, match="another verifier"):
        resume(tmp_path / "run.db", study=PricingStudy())


def test_file_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "no.db").write_text("not a database at all" * 100)
    with pytest.raises(InputError, match="not the file of a run"):
        Store(tmp_path / "no.db")


def test_run_of_another_study_is_refused(search_on, tmp_path):
    search_on(1, "run.db").close()

    class Other(PricingStudy):
        name = "other"

    with pytest.raises(InputError, match="'pricing', not of 'other'"):
        Search(Other(), store=tmp_path / "run.db")


def test_more_workers_evaluate_the_same_number(search_on):
    search = search_on(9, jail="subprocess")
    search.run(n_jobs=2)
    again = search_on(9, jail="subprocess")
    again.run(n_jobs=2)
    assert search.evaluations == 9 and search.store.dump() == again.store.dump()


def test_racing_stops_hopeless_candidates_early(search_on):
    search = search_on(40, trials=(6, 1, 2), archive="top")
    search.run()
    stopped = search.store.candidates("reason LIKE 'stopped after%'")
    assert stopped
    for each in stopped:
        assert len(search.store.trials(each.number, "training")) < len(search.splits.training)
        assert each.score < search.archive.threshold


def test_spend_is_counted_from_reservation_on(search_on):
    from cloudchamber.evolve import Spend

    search = search_on()
    first = search.store.reserve(1, Spend(100, 0.5))
    assert search.store.spent() == Spend(100, 0.5)
    search.store.settle(first, Spend(60, 0.3))
    assert search.store.spent() == Spend(60, 0.3)


def test_seeds_are_drawn_when_none_is_given():
    seeds = set()
    for _ in range(2):
        with Search(PricingStudy(), Settings(start="BySize", trials=(1, 1, 2), jail="none")) as search:
            seeds.add(search.seed)
            assert json.dumps(search.problem.text) and str(search.seed) not in repr(search.problem)
    assert len(seeds) == 2


def test_proposers_see_no_hidden_trial(search_on):
    seen = []

    class Spy:
        name = "spy"

        def propose(self, context, rng):
            seen.append(context)
            return Proposal(BETTER.format(rate=float(rng.uniform(0, 5))), (context.parents[0].number,))

    with Search(
        PricingStudy(), Settings(start="BySize", trials=(2, 2, 2), seed=1, jail="none"), budget=Budget(3), proposers={"spy": Spy()}
    ) as search:
        search.run()
        hidden = {str(point.seed) for point in (*search.splits.validation, *search.splits.held_out)}
    text = "".join(f"{each.feedback}{each.reason}{each.note}{each.source}" for context in seen for each in context.parents)
    assert not any(seed in text for seed in hidden)


def test_quality_needs_no_bound(search_on):
    class Unbounded(PricingStudy):
        def bound(self, workload, seed):
            return None

    search = search_on(study=Unbounded())
    assert search.starts[0].score == pytest.approx(1.0)
    verdict = search.tell(search.ask()[0].id, BETTER.format(rate=3.0))
    assert verdict.score > 1.0 and np.isfinite(verdict.score)


def test_a_failing_proposer_is_told_once_in_a_row_and_its_cause_ends_the_run(monkeypatch):
    monkeypatch.setattr("cloudchamber.evolve.search.PATIENCE_S", 2.5)
    lines: list[str] = []
    settings = Settings(start="BySize", trials=(1, 1, 2), seed=1, jail="none")
    with Search(PricingStudy(), settings, budget=Budget(5), proposers={"dead": Dead("dead")}) as search:
        with pytest.raises(ProposerUnavailable, match=r"\(dead: nobody answers\); resume"):
            search.run(warn=lines.append)
        assert search.store.silences() == {"dead": (2, "nobody answers")}
    assert lines == ["dead: nobody answers; no other can go on, so it is tried for 2 s."]
    lines.clear()
    both = {"dead": Dead("dead", lambda calls: calls != 2), "alive": Dead("alive", lambda calls: False)}
    with Search(PricingStudy(), settings, budget=Budget(8), proposers=both) as search:
        search.run(warn=lines.append)
    assert lines == ["dead: nobody answers; others go on."]


def foreign(path, *statements):
    """A file of another program."""
    with contextlib.closing(sqlite3.connect(path)) as there:
        for each in ("CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('mine')", *statements):
            there.execute(each)
        there.commit()
    return path


@pytest.mark.parametrize("is_reader", [False, True])
@pytest.mark.parametrize("statements", [(), ("PRAGMA user_version = 1",), ("CREATE TABLE run (key, value)", "PRAGMA user_version = 1")])
def test_the_file_of_another_program_is_left_as_it_is(tmp_path, statements, is_reader):
    path = foreign(tmp_path / "app.db", *statements)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"app\.db is not the file of a run"):
        Store(path, is_reader=is_reader)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["app.db"]


def test_the_file_that_another_program_has_open_is_left_as_it_is(tmp_path):
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE notes (text)")  # in the write-ahead log alone
        with pytest.raises(InputError, match="not the file of a run"):
            Store(path)
        assert not (tmp_path / "app.db.lock").exists()
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]


def test_a_folder_is_no_store(tmp_path):
    (tmp_path / "runs.d").mkdir()
    for is_reader in (False, True):
        with pytest.raises(InputError, match="is a folder; give the file of a run"):
            Store(tmp_path / "runs.d", is_reader=is_reader)
    assert [each.name for each in tmp_path.iterdir()] == ["runs.d"]


def test_an_empty_file_begins_a_run_and_holds_none(tmp_path):
    (tmp_path / "empty.db").touch()
    with pytest.raises(InputError, match=r"not the file of a run; `chamber evolve STUDY --store .*` starts one"):
        Store(tmp_path / "empty.db", is_reader=True)
    Store(tmp_path / "empty.db").close()
    assert Store(tmp_path / "empty.db", is_reader=True).counts() == {}


def test_a_run_of_another_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "old.db"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as there:
        there.execute("PRAGMA user_version = 7")
    before = path.read_bytes()
    with pytest.raises(InputError, match="is of version 7 of the store, this is 1"):
        Store(path)
    assert path.read_bytes() == before


def damaged(path):
    """Overwrite all pages but the first, which holds the schema."""
    data = bytearray(path.read_bytes())
    start = 4096 * 2
    data[start:] = b"\xa5" * (len(data) - start)
    path.write_bytes(data)


def test_a_damaged_run_says_what_to_do(search_on, tmp_path):
    search_on(5, "run.db").close()
    damaged(tmp_path / "run.db")
    with pytest.raises(StoreFault, match=r"run\.db is damaged: .*start a new run with another --store"):
        Store(tmp_path / "run.db", is_reader=True).candidates()
    with pytest.raises(StoreFault, match="is damaged"):
        resume(tmp_path / "run.db", study=PricingStudy())
