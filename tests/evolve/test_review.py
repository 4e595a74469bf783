"""Faults that a review found, each as it was reproduced."""

from __future__ import annotations

import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.evolve import Budget, Search, Settings, resume

from .test_search import BETTER
from .toy.study import PricingStudy

SETTINGS = {"start": "BySize", "trials": (1, 1, 2), "seed": 1, "jail": "none"}


class Fragile(PricingStudy):
    """A world that fails on some answers."""

    def trial(self, policy, workload, seed):
        outcome = super().trial(policy, workload, seed)
        if outcome.metrics["dearest"] > 90:
            raise TypeError("the world did not expect that")
        return outcome


def test_a_world_that_fails_on_an_answer_voids_the_candidate_and_leaves_the_run_alone(tmp_path):
    with Search(Fragile(), Settings(**SETTINGS), store=tmp_path / "run.db") as search:
        verdict = search.tell(search.ask()[0].id, BETTER.format(rate="95"))
        assert verdict.status == "void" and "the world failed" in verdict.reason
    with resume(tmp_path / "run.db", study=Fragile()) as search:
        assert search.tell(search.ask()[0].id, BETTER.format(rate="3")).status == "archived"


def test_proposers_with_nothing_to_say_end_the_run():
    class Silent:
        name = "silent"

        def propose(self, context, rng):
            return None

    with Search(PricingStudy(), Settings(**SETTINGS), budget=Budget(9), proposers={"silent": Silent()}) as search:
        search.run()
        assert search.evaluations == 0
        assert search.store._db.execute("SELECT COUNT(*) FROM task WHERE state = 'idle'").fetchone()[0] == 50


def test_a_resumed_run_keeps_its_budget(tmp_path):
    path = tmp_path / "run.db"
    Search(PricingStudy(), Settings(**SETTINGS), store=path, budget=Budget(7, usd=1.5, wall_s=100)).close()
    with resume(path, study=PricingStudy()) as search:
        assert search.budget == Budget(7, usd=1.5, wall_s=100)


def test_a_kill_among_the_starting_policies_changes_nothing(tmp_path):
    class Killed(Search):
        def _absorb(self, candidate, trials):
            super()._absorb(candidate, trials)
            raise KeyboardInterrupt

    settings = Settings(**SETTINGS | {"start": None})
    with pytest.raises(KeyboardInterrupt):
        Killed(PricingStudy(), settings, store=tmp_path / "run.db", budget=Budget(5))
    with Search(PricingStudy(), settings, budget=Budget(5)) as whole, resume(tmp_path / "run.db", study=PricingStudy()) as search:
        assert [each.note for each in search.starts] == [each.note for each in whole.starts] == ["BySize", "Flat"]
        assert search.evaluator.opener.limits is not None


def test_a_mistyped_start_leaves_no_run_behind(tmp_path):
    with pytest.raises(InputError, match="BySize"):
        Search(PricingStudy(), Settings(**SETTINGS | {"start": "BySise"}), store=tmp_path / "run.db")
    Search(PricingStudy(), Settings(**SETTINGS), store=tmp_path / "run.db").close()


def test_other_settings_than_those_of_the_run_are_refused(tmp_path):
    Search(PricingStudy(), Settings(**SETTINGS), store=tmp_path / "run.db").close()
    with pytest.raises(InputError, match="another start and seed"):
        Search(PricingStudy(), Settings(**SETTINGS | {"start": "Flat", "seed": 2}), store=tmp_path / "run.db")


def test_rejected_answers_leave_the_same_weights_after_a_resume(tmp_path):
    with Search(PricingStudy(), Settings(**SETTINGS), store=tmp_path / "run.db") as search:
        search.tell(search.ask()[0].id, "no policy at all")
        before = dict(search.archive._children)
    with resume(tmp_path / "run.db", study=PricingStudy()) as search:
        assert search.archive._children == before == {}


def test_a_clock_steers_no_archive():
    from cloudchamber.core.outcome import Metric
    from cloudchamber.evolve.trials import Trial, behaviour

    trial = Trial("training", "w", 0, {"cost": 1.0, "plan_s": 3.0, "share": 0.5}, None, "", "", "", 1)
    metrics = (Metric("cost", "USD"), Metric("plan_s", "s", is_timed=True), Metric("share", "1", high=1.0))
    assert behaviour([trial], metrics) == (0.5,)


def test_a_verdict_is_made_once_per_winner(search_on):
    from cloudchamber.evolve import judge

    search = search_on(3)
    search.run()
    first, again = judge(search), judge(search)
    assert [str(each) for each in first] == [str(each) for each in again] and search.store["verdicts"] == 1
