"""What a candidate could try against the world: it must end void, or gain nothing (see HACKS: 2, 4, 7, 11, 12, 23)."""

from __future__ import annotations

import numpy as np
import pytest

from cloudchamber.core.parallel import run_task
from cloudchamber.transactions import FIFO, BatchSpec, Simulator, TransactionsStudy, batch_of
from cloudchamber.transactions.simulator import waited_for

STUDY = TransactionsStudy()
SMOKE = STUDY.workloads()["smoke"]


class Answer:
    """A policy that answers with what a function makes of the batch."""

    def __init__(self, answer):
        self.answer = answer

    def reset(self, spec, rng):
        self.spec = spec

    def order(self, batch):
        return self.answer(batch)


def outcome(answer, workload=SMOKE):
    return run_task(STUDY, {"hack": lambda: Answer(answer)}, workload, 0)[1][0].outcome


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda batch: (), "leaves out 7 of 7"),
        (lambda batch: tuple(range(len(batch) - 1)), "leaves out 1 of 7 transactions, 6"),
        (lambda batch: (0,) * len(batch), "names transaction 0 twice"),
        (lambda batch: (*range(len(batch)), 0), "names transaction 0 twice"),
        (lambda batch: tuple(range(1, len(batch) + 1)), "names transaction 7; there are 0 to 6"),
        (lambda batch: (-1, *range(len(batch) - 1)), "names transaction -1"),
        (lambda batch: tuple(map(float, range(len(batch)))), "whole numbers, got float"),
        (lambda batch: (False, True, *range(2, len(batch))), "got bool"),
        (lambda batch: (float("nan"),) * len(batch), "got float nan"),
        (lambda batch: tuple(map(str, range(len(batch)))), "got str"),
        (lambda batch: np.arange(len(batch)), "a tuple of whole numbers, got ndarray"),
        (lambda batch: (1, tuple(range(len(batch)))), "got tuple"),  # a makespan of one's own, with the schedule
        (lambda batch: {"makespan": 1, "schedule": list(range(len(batch)))}, "got dict"),
        (lambda batch: None, "got NoneType"),
        (lambda batch: iter(range(len(batch))), "got range_iterator"),
    ],
)
def test_what_is_no_order_is_void_and_says_why(answer, says):
    found = outcome(answer)
    assert found.is_void and says in found.violations[0]


def test_a_list_is_as_good_as_a_tuple():
    assert not outcome(lambda batch: list(range(len(batch)))).is_void


def test_a_subclass_of_tuple_or_int_is_refused():
    class Sly(int):
        def __index__(self):
            return 0

    class Row(tuple):
        __slots__ = ()

        def __len__(self):
            return 7

    assert outcome(lambda batch: tuple(Sly(i) for i in range(len(batch)))).is_void
    assert outcome(lambda batch: Row(())).is_void


def test_writing_into_the_batch_changes_nothing():
    def vandal(batch):
        for array in (batch.kind, batch.key, batch.position, batch.offsets, batch.length):
            array.flags.writeable = True
            array[:] = 0
        return tuple(range(len(batch)))

    honest = run_task(STUDY, {"FIFO": FIFO}, SMOKE, 0)[1][0].outcome
    found = outcome(vandal)
    assert found.is_void or found.metrics == honest.metrics
    assert run_task(STUDY, {"FIFO": FIFO}, SMOKE, 0)[1][0].outcome.metrics == honest.metrics


def test_a_crash_is_void_with_its_place():
    found = outcome(lambda batch: 1 // 0)
    assert found.is_void and "ZeroDivisionError" in found.violations[0]


def test_an_order_learned_by_heart_does_not_survive_renaming():
    workload = STUDY.workloads()["ycsb"]
    world = workload.world(0)
    best = world.ask(STUDY.policies()["SMFAll"](), np.random.default_rng(0))
    spans = [workload.renamed(np.random.default_rng(seed)).world(0).schedule(best).makespan for seed in range(5)]
    assert min(spans) > 1.5 * world.schedule(best).makespan


def test_schedule_by_hand():
    world = Simulator(batch_of(["w-1 *", "r-1 *", "*"]), BatchSpec(100))
    done = world.schedule((0, 1, 2))
    assert done.start.tolist() == [0, 1, 0] and done.end.tolist() == [2, 3, 1] and done.makespan == 3 and done.restarts == 0
    assert Simulator(batch_of([]), BatchSpec(1)).schedule(()).makespan == 0


def test_restarts_are_counted():
    done = Simulator(batch_of(["w-1 * * *", "r-1 * *"]), BatchSpec(100, "occ")).schedule((0, 1))
    assert done.restarts == 2


def test_the_chain_of_waits_explains_the_last_end():
    world = Simulator(batch_of(["w-7 * *", "r-7 w-8", "w-8 * * *", "*"]), BatchSpec(100))
    done = world.schedule((0, 1, 2, 3))
    assert waited_for(world, done) == [(0, None), (1, 0), (2, 1)]
    for model, chain in (("2pl", [0, 1, 2]), ("occ", [0, 1])):  # under occ the third runs while the first does
        world = Simulator(world.batch, BatchSpec(100, model))
        assert [t for t, _ in waited_for(world, world.schedule((0, 1, 2, 3)))] == chain


def test_feedback_names_makespan_bound_and_key():
    feedback = outcome(lambda batch: tuple(range(len(batch)))).feedback
    assert "no order is below" in feedback and "waits" in feedback
