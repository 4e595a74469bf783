"""Every built-in policy of every registered study gives the same bytes jailed and in process, in any order."""

from __future__ import annotations

import pytest

from cloudchamber.core.candidate import ask
from cloudchamber.core.messages import encode
from cloudchamber.core.parallel import one_trial
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.registry import load_study, study_names
from cloudchamber.jail import Limits
from cloudchamber.jail.files import JailedPolicy, source_of

from .conftest import HONEST, play

pytestmark = pytest.mark.jail
# policies that need a library their study does not list, which the jail has not
OTHER_LIBRARIES = {("transactions", "CPSATExact")}
PATIENT = Limits(cpu_s=300, call_s=120, wall_s=600)  # compiling on a busy machine


def policies():
    for name in study_names():
        study = load_study(name)
        for label, maker in study.policies().items():
            if not is_clairvoyant(ask(maker)) and (name, label) not in OTHER_LIBRARIES:
                yield pytest.param(study, label, maker, id=f"{name}-{label}")


def bytes_of(study, maker, seed=0):
    """All of an outcome that is no time."""
    outcome = one_trial(study, maker, study.workloads()["smoke"], seed)
    timed = {metric.name for metric in study.metrics if metric.is_timed}
    metrics = {name: value for name, value in outcome.metrics.items() if name not in timed}
    return encode([metrics, list(outcome.violations), dict(outcome.series)])


@pytest.mark.parametrize(("study", "label", "maker"), list(policies()))
def test_same_bytes_jailed_and_in_process(study, label, maker):
    source, expression, path = source_of(maker)
    jailed = JailedPolicy(study, source, name=expression, path=path, level="namespace", limits=PATIENT)
    assert bytes_of(study, jailed) == bytes_of(study, maker)


@pytest.mark.parametrize("name", study_names())
def test_two_trials_in_any_order_are_equal(name):
    study = load_study(name)
    label, maker = next((label, maker) for label, maker in study.policies().items() if not is_clairvoyant(ask(maker)))
    source, expression, path = source_of(maker)
    jailed = JailedPolicy(study, source, name=expression, path=path, level="namespace", limits=PATIENT)
    forth = [bytes_of(study, jailed, seed) for seed in (0, 1)]
    back = [bytes_of(study, jailed, seed) for seed in (1, 0)]
    assert forth == back[::-1], label


def test_global_generators_are_not_those_of_the_candidate_before():
    draws = HONEST.replace("float(rng.random())", "__import__('random').random() + float(__import__('numpy').random.random())")
    assert len({play(draws, steps=1)[0].number for _ in range(3)}) == 3


def test_batch_is_the_single_calls():
    import numpy as np

    from cloudchamber.jail.levels import NamespaceJail

    from .play import Clue, Player

    clues = [(Clue(i, np.arange(4.0) * i),) for i in range(64)]
    with NamespaceJail(libraries=("numpy",)).load(HONEST, Player) as player:
        player.reset(np.random.default_rng(0))
        assert encode(player.guess_many(clues)) == encode([player.guess(*clue) for clue in clues])
