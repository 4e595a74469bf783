import subprocess
import sys

import numpy as np
import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.core.recording import Recorder, Recording
from cloudchamber.engine.model import SchedulerPolicy
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.policies.plas import PLAS
from cloudchamber.engine.simulator import drive

from .worlds import POLICIES, engine, simple


def recorded(policy):
    recorder = Recorder(policy, SchedulerPolicy)
    core = engine(recorder, blocks=8, running=3)
    drive(core, [simple(i, 8 + i, 6, 0.01 * i, hashes=[1, 2 + i], program=f"p{i % 2}") for i in range(8)])
    return recorder.recording


@pytest.mark.parametrize("name", POLICIES)
def test_replays_to_the_same_decisions_in_a_fresh_process(name, tmp_path):
    recording = recorded(POLICIES[name]())
    recording.save(tmp_path / "run")
    assert {each.verb for each in recording.asked} >= {"reset", "order", "chunk", "on_arrive", "on_admit", "on_finish", "victim"}
    study, _, policy = name.rpartition(".")
    code = (
        "import sys; from pathlib import Path; from cloudchamber.core.registry import load_study; "
        f"from cloudchamber.core.recording import Recording; study = load_study({study!r}); "
        f"print(Recording.load(Path(sys.argv[1])).replay(study.policies()[{policy!r}](), study.protocol))"
    )
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=True).stdout
    assert int(said) == len(recording.asked)


def test_another_policy_is_told_apart():
    class Backwards(FCFS):
        def order(self, view, waiting):
            return super().order(view, waiting)[::-1]

    with pytest.raises(InputError, match="order: recorded was"):
        recorded(FCFS()).replay(Backwards(), SchedulerPolicy)


def test_a_file_that_is_no_recording(tmp_path):
    (tmp_path / "run").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a valid Recording"):
        Recording.load(tmp_path / "run")


def test_a_recorder_answers_what_its_policy_does():
    policy = PLAS()
    policy.reset(None, np.random.default_rng(0))
    recorder = Recorder(policy, SchedulerPolicy)
    assert recorder.release(engine().view(), []) is None and not hasattr(recorder, "nonsense")
