from __future__ import annotations

import numpy as np

from cloudchamber import study
from cloudchamber.transactions import TransactionsStudy
from cloudchamber.transactions.figures import figures

STUDY = TransactionsStudy()


def test_report_shows_schedules_and_means(tmp_path):
    results = study("transactions", ["LocalSearch", "SMF", "FIFO", "Random"], [STUDY.workloads()["smoke"], "epinions"], seeds=1)
    made = figures(results)
    assert [figure.title.partition(":")[0] for figure in made] == ["Over all workloads alike", *["When each transaction ran"] * 2]
    assert all("<svg" in figure.svg and "nan" not in figure.svg for figure in made)
    assert "When each transaction ran" in results.report(tmp_path / "r.html").read_text()


def test_void_policies_are_left_out_of_the_pictures():
    class Nothing:
        def reset(self, spec, rng):
            pass

        def order(self, batch):
            return ()

    assert figures(study("transactions", [Nothing], ["smoke"], seeds=1)) == []


def test_small_batches_have_an_exact_bound_and_large_ones_a_proven_one():
    tiny = STUDY.bound(STUDY.workloads()["tiny"], 3)
    assert tiny.is_exact and tiny.outcome.metrics["makespan_slots"] == tiny.value
    large = STUDY.bound(STUDY.workloads()["ycsb"], 0)
    assert not large.is_exact and large.value > 0


def test_every_model_can_be_studied():
    for model in ("2pl", "occ"):
        workload = STUDY.adjusted(STUDY.workloads()["smoke"], model=model, budget=500)
        results = study("transactions", workloads=[workload], seeds=2)
        assert not any(trial.outcome.is_void for trial in results.trials)


def test_adversarial_batches_fool_greedy():
    rows = {row.policy: row.mean for row in study("transactions", ["SMFAll", "FewestWritesFirst"], ["adversarial"], seeds=4).summary()}
    assert rows["SMFAll"] > 1.5 * rows["FewestWritesFirst"]


def test_parallelism_is_work_over_makespan():
    trial = study("transactions", ["FIFO"], ["smoke"], seeds=1).trials[0]
    batch = STUDY.workloads()["smoke"].world(0).batch
    assert trial.outcome.metrics["parallelism"] == np.sum(batch.length) / trial.outcome.metrics["makespan_slots"]
