from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.core.parallel import run_task
from cloudchamber.transactions.online import (
    FIFOOnline,
    HotKeyPredictor,
    KeyState,
    LockAware,
    OnlineSpec,
    OnlineStudy,
    SMFOnline,
    TxnView,
    World,
    run_coroutines,
    run_threads,
    simulate,
    unserialisable,
)
from cloudchamber.transactions.online.store import PROTOCOLS
from cloudchamber.transactions.online.world import Call

STUDY = OnlineStudy()
SMOKE = STUDY.workloads()["smoke"]


def state(free=2, **until):
    keys = sorted(int(name[1:]) for name in until)
    written, read = zip(*(until[f"k{key}"] for key in keys), strict=True) if keys else ((), ())
    return KeyState(0.0, free, np.array(keys, dtype=np.int64), np.array(written, dtype=float), np.array(read, dtype=float))


def view(number, reads=(), writes=(), waited_s=0.0):
    return TxnView(number, 0, 0, -waited_s, 0, reads, writes)


def fresh(policy, seed=0):
    policy.reset(OnlineSpec(2, 1.0, 8), np.random.default_rng(seed))
    return policy


def test_lock_aware_admits_what_conflicts_with_nothing():
    window = (view(0, reads=(1,)), view(1, writes=(2,)), view(2, reads=(2,)), view(3))
    assert fresh(LockAware()).admit(window, state(free=2, k1=(5.0, -np.inf))) == (1, 3)
    assert fresh(LockAware()).admit(window[:1], state(free=1, k1=(5.0, -np.inf))) == ()
    assert fresh(LockAware()).admit((view(4, reads=(1,), writes=(1,)),), state(free=2)) == (4,)


def test_smf_takes_who_waits_least_and_the_old_before_the_young():
    window = (view(2, waited_s=300.0, reads=(1,)), view(0, reads=(1,)), view(1))
    assert fresh(SMFOnline()).admit(window, state(free=1, k1=(5.0, -np.inf))) == (2,)
    assert fresh(SMFOnline()).admit(window[1:], state(free=1, k1=(5.0, -np.inf))) == (1,)


def test_smf_holds_back_who_would_wait_for_long():
    assert fresh(SMFOnline()).admit((view(0, reads=(1,)),), state(free=1, k1=(99.0, -np.inf))) == ()


def test_the_predictor_learns_hot_keys_of_a_call():
    predictor = HotKeyPredictor(hot=0.5)
    assert predictor.predict(Call(0, 1, 1, ())) == ((), ())
    for number in range(4):
        predictor.learn(Call(number, 1, 1, ((7, True), (8, False), (100 + number, False))))
    assert predictor.predict(Call(9, 1, 1, ())) == ((8,), (7,))
    assert predictor.predict(Call(9, 2, 1, ())) == ((), ())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("policy", [FIFOOnline, SMFOnline, LockAware])
def test_everything_commits_once_and_in_a_serial_order(protocol, policy):
    world = replace(SMOKE, protocol=protocol).world(1)
    made = policy()
    made.reset(world.spec, np.random.default_rng(0))
    assert simulate(world, made) > 0
    assert sorted(line.number for line in world.store.history) == list(range(SMOKE.n))
    assert unserialisable(world.store.history) == []


@pytest.mark.parametrize("drive", [run_coroutines, run_threads])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_real_workers_commit_everything_once_and_in_a_serial_order(protocol, drive):
    workload = replace(SMOKE, protocol=protocol, n=40, workers=6)
    world, policy = workload.world(0), SMFOnline()
    policy.reset(world.spec, np.random.default_rng(0))
    drive(world, policy)
    assert sorted(line.number for line in world.store.history) == list(range(40))
    assert unserialisable(world.store.history) == []


def test_a_worker_that_dies_stops_the_run_with_its_reason_and_leaves_no_lock():
    world = replace(SMOKE, protocol="2pl").world(0)

    class Broken(World):
        def step(self, run):
            if len(self.store.history) == 5:
                raise RuntimeError("disk gone")
            return super().step(run)

    broken = Broken(SMOKE.calls(0), world.spec, "2pl")
    policy = FIFOOnline()
    policy.reset(world.spec, np.random.default_rng(0))
    with pytest.raises(RuntimeError, match="disk gone"):
        run_threads(broken, policy)
    assert len(broken.store.history) == 5


class Answer:
    def __init__(self, answer):
        self.answer = answer

    def reset(self, spec, rng):
        pass

    def admit(self, window, state):
        return self.answer(window)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda window: (window[0].number,) * 2, "each once"),
        (lambda window: (10**6,), "1000000 is not"),
        (lambda window: (0.0,), "whole numbers"),
        (lambda window: None, "whole numbers"),
    ],
)
def test_wrong_answers_are_void(answer, says):
    outcome = run_task(STUDY, {"hack": lambda: Answer(answer)}, SMOKE, 0)[1][0].outcome
    assert outcome.is_void and says in outcome.violations[0]


def test_who_admits_nobody_is_forced():
    outcome = run_task(STUDY, {"lazy": lambda: Answer(lambda window: ())}, SMOKE, 0)[1][0].outcome
    assert not outcome.is_void and outcome.metrics["forced"] == SMOKE.n


def test_aborted_for_ever_is_an_error(monkeypatch):
    monkeypatch.setattr("cloudchamber.transactions.online.world.MAX_ATTEMPTS", 1)
    world = SMOKE.world(0)
    with pytest.raises(CandidateError, match="was aborted 1 times"):
        simulate(world, FIFOOnline())


@pytest.mark.parametrize(("key", "value"), [("speed", "1"), ("protocol", "si"), ("workers", "0"), ("theta", "x"), ("n", "1.5")])
def test_wrong_settings_are_refused(key, value):
    with pytest.raises(InputError, match=key):
        STUDY.adjusted(SMOKE, **{key: value})


def test_scheduling_wins_under_contention_on_the_simulated_clock():
    def tps(name, policy):
        return STUDY.trial(policy, STUDY.workloads()[name], 3).metrics["throughput_tps"]

    assert tps("zipf1.1-mvschedo", SMFOnline()) > 1.3 * tps("zipf1.1-mvtso", FIFOOnline())


def test_the_command_times_both_sides():
    arguments = ["run", "transactions", "--json", "--theta", "1.1", "--seeds", "1", "--set", "n=30", "--set", "workers=4"]
    out = subprocess.run([sys.executable, "-m", "cloudchamber", *arguments], capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    assert {(row["policy"], row["protocol"], row["evidence"]) for row in rows} == {
        ("SMFOnline", "mvschedo", "measured"),
        ("FIFOOnline", "mvtso", "measured"),
    }
    assert all(row["throughput_tps"] > 0 and row["ceiling_tps"] > 0 and row["void"] is None for row in rows)
