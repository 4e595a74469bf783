from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message
from cloudchamber.core.outcome import judged
from cloudchamber.core.parallel import run_task
from cloudchamber.placement import Instance, Loads, Model, Placement, PlacementStudy, measured, run

from .worlds import instance, kvpr, small

STUDY = PlacementStudy()
TWO = instance(2, (20, 6, 6), (40, 3, 6), (10, 9, 6))


def trial(place, reset=None):
    """Run a policy made of one function on the smoke workload."""

    class Made:
        def reset(self, spec, rng):
            if reset:
                reset(spec, rng)

        def place(self, instance):
            return place(instance)

    return run_task(STUDY, {"made": Made}, STUDY.workloads()["smoke"], 0)[1][0].outcome


def test_pressure_by_hand():
    loads = measured(Placement((0, 1, 0)), TWO)
    assert loads.kvpr.tolist() == [2.5 / 50, 0.5 / 40]
    assert loads.used_gb.tolist() == [30, 40]


def test_a_gpu_without_a_model_has_no_pressure():
    loads = measured(Placement((0, 0, 0)), TWO)
    assert loads.kvpr.tolist() == [3.0 / 10, 0.0]


@given(small, st.data())
def test_agrees_with_the_definition(each, data):
    gpu_of = tuple(data.draw(st.integers(0, each.gpus - 1)) for _ in each.models)
    found, expected = measured(Placement(gpu_of), each), kvpr(each, gpu_of)
    if isinstance(found, Loads):
        assert found.kvpr.max() == pytest.approx(expected)
    else:
        assert expected == float("inf") and "leaves none for the KV cache" in found[0]


@given(small, st.data())
def test_order_of_models_and_names_of_gpus_do_not_matter(each, data):
    gpu_of = tuple(data.draw(st.integers(0, each.gpus - 1)) for _ in each.models)
    order = data.draw(st.permutations(range(len(each.models))))
    names = data.draw(st.permutations(range(each.gpus)))
    first = measured(Placement(gpu_of), each)
    second = measured(Placement(tuple(names[gpu_of[i]] for i in order)), Instance(each.gpus, 80.0, tuple(each.models[i] for i in order)))
    assert isinstance(first, Loads) == isinstance(second, Loads)
    if isinstance(first, Loads):
        assert sorted(first.kvpr.tolist()) == sorted(second.kvpr.tolist())  # to the last bit


class Claimed(Message, frozen=True):
    gpu_of: tuple[int, ...]
    kvpr: float


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Placement((0, 1)), "2 GPUs named for 3 models"),  # a model dropped
        (Placement((0, 1, 0, 1)), "4 GPUs named for 3 models"),  # one invented
        (Placement((0, 1, 2)), "no GPU 2"),  # one GPU for each model, as the published evaluator allowed
        (Placement((0, 1, -1)), "no GPU -1"),
        (Placement((0.0, 1, 0)), "no Placement"),
        (Placement((True, 1, 0)), "no Placement"),
        (Placement((float("nan"), 1, 0)), "no Placement"),
        (Placement(None), "no Placement"),
        (Placement((2**70, 1, 0)), "no Placement"),
        (Claimed((0, 1, 0), 0.0), "no Placement"),  # its own score
        ((0, 1, 0), "no Placement"),
        (None, "no Placement"),
        ("0,1,0", "no Placement"),
        (object(), "no Placement"),
    ],
)
def test_a_wrong_answer_is_void(answer, says):
    found = measured(answer, TWO)
    assert isinstance(found, tuple) and says in found[0]


def test_memory_is_checked_exactly():
    full = instance(2, (50, 6, 6), (30, 3, 6), (10, 9, 6))
    assert "leaves none" in measured(Placement((0, 0, 1)), full)[0]
    assert isinstance(measured(Placement((0, 1, 1)), full), Loads)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert isinstance(measured(Placement(tuple(np.array([0, 1, 0]))), TWO), Loads)


def test_changing_what_was_passed_gains_nothing():
    """Rates set to zero in place: the world keeps its own copy."""
    import msgspec

    honest = trial(lambda instance: Placement(tuple(i % instance.gpus for i in range(len(instance.models)))))

    def cheat(instance):
        for model in instance.models:
            msgspec.structs.force_setattr(model, "request_rate", 0.0)
        return Placement(tuple(i % instance.gpus for i in range(len(instance.models))))

    assert trial(cheat).metrics == honest.metrics


def test_changing_the_specification_gains_nothing():
    import msgspec

    def more(spec, rng):
        msgspec.structs.force_setattr(spec, "gpus", 100)

    assert "no GPU" in trial(lambda instance: Placement(tuple(range(len(instance.models)))), more).violations[0]


@pytest.mark.parametrize("error", [ValueError, SystemExit, MemoryError, RecursionError])
def test_a_skipped_instance_is_void(error):
    def skip(instance):
        raise error("too hard")

    outcome = trial(skip)
    assert outcome.is_void and not outcome.metrics


def test_better_than_the_bound_is_void():
    bound = STUDY.bound(STUDY.workloads()["smoke"], 0)
    forged = {**bound.outcome.metrics, "kvpr": 0.5 * bound.value}
    assert judged(type(bound.outcome)(forged), STUDY.metrics, bound).is_void


def test_feedback_says_which_gpu_and_why():
    outcome = trial(lambda instance: Placement((0, *[1 + i % 2 for i in range(len(instance.models) - 1)])))
    assert "is set by GPU" in outcome.feedback and "GB free" in outcome.feedback


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Model(0.0, 1.0, 1.0), "size_gb"),
        (lambda: Model(1.0, -1.0, 1.0), "request_rate"),
        (lambda: Model(1.0, 1.0, float("nan")), "slo"),
        (lambda: Instance(0, 80.0, (Model(1.0, 1.0, 1.0),)), "at least one GPU"),
        (lambda: Instance(1, 80.0, ()), "one model"),
        (lambda: Instance(1, 80.0, (Model(80.0, 1.0, 1.0),)), "larger GPUs"),
        (lambda: Instance(1, float("inf"), (Model(8.0, 1.0, 1.0),)), "gpu_memory_gb"),
    ],
)
def test_impossible_instances_are_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_policy_gets_the_rng_it_may_use():
    class Policy:
        def reset(self, spec, rng):
            self.draw = rng.integers(spec.gpus)

        def place(self, instance):
            return Placement((int(self.draw), 1 - int(self.draw), int(self.draw)))

    first, second = (run(Policy(), TWO, np.random.default_rng(3)) for _ in range(2))
    assert first.gpu_of.tolist() == second.gpu_of.tolist()
