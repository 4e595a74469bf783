"""The attacks that beat other evaluators, one test each, named after their number in the red-team list: void, or nothing is gained."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from cloudchamber.core.errors import CandidateError
from cloudchamber.core.parallel import one_trial, study
from cloudchamber.jail import CommandJail, Limits
from cloudchamber.jail.files import JailedPolicy
from cloudchamber.jail.launch import SPARES
from cloudchamber.jail.levels import NamespaceJail
from cloudchamber.jail.memory import tree
from cloudchamber.spot import SpotStudy

from .conftest import HONEST, QUICK, play
from .play import Clue, Player

pytestmark = pytest.mark.jail
SPOT = """
import os, sys
from cloudchamber.spot.model import Decision, Launch
class Mine:
    def reset(self, spec, rng):
        {reset}
    def decide(self, obs):
        {decide}
        return Decision((Launch(0, "on_demand"),))
"""


def spot(reset="pass", decide="pass", study=None):
    """The outcome of a spot candidate on smoke."""
    subject = study or SpotStudy()
    make = JailedPolicy(subject, SPOT.format(reset=reset, decide=decide), level="namespace", limits=QUICK)
    return one_trial(subject, make, subject.workloads()["smoke"], 0)


@pytest.fixture(scope="module")
def honest():
    return spot().metrics


def said(expression):
    """What an expression gives inside, as text; raises what it raises."""
    source = HONEST.replace("picks=(clue.step,)", f"text=str({expression})")
    return play(source, steps=1)[0].text


def test_a1_patching_the_verifier_finds_none(honest):
    walk = "f = sys._getframe()\n        while f: [f.f_globals.update({k: None}) for k in list(f.f_globals) if 'judged' in k or 'trial' in k]; f = f.f_back"
    assert spot(decide=walk).metrics == honest
    with pytest.raises(CandidateError, match="ModuleNotFoundError"):
        said("__import__('cloudchamber.spot.simulator')")


def test_a2_changing_what_was_given_changes_a_copy(honest):
    change = "import ctypes; x = obs.spot_usd_h; ctypes.memset(x.ctypes.data, 0, x.nbytes)"
    assert spot(decide=change).metrics == honest


def test_a3_poisoned_caches_end_with_the_trial(normal):
    poison = "import numpy, functools; numpy.ndarray = None; numpy.sum = None; __builtins__['sum'] = None"
    with pytest.raises(CandidateError):
        play(HONEST.replace("self.first = float(rng.random())", f"{poison}; 1 / 0"))
    assert play(HONEST) == normal


def test_a4_a_score_of_its_own_is_an_unknown_field():
    assert spot(decide="return {'type': 'Decision', 'prefs': [], 'cost_usd': 0.0}").is_void


def test_a5_physics_of_its_own_are_an_unknown_field():
    assert spot(decide="return {'prefs': [{'type': 'launch', 'zone': 0, 'mode': 'on_demand', 'price': 0.0}]}").is_void


def test_a6_no_score_is_read_from_what_it_prints(honest):
    forge = "print('score: 1e9'); print('cost_usd 0'); sys.stderr.write('Ratio: 1.0'); import atexit; atexit.register(print, 0)"
    assert spot(reset=forge, decide=forge).metrics == honest
    with pytest.raises(CandidateError):  # a time-out is no result, whatever it said before
        CommandJail().run(["sh", "-c", "echo 'Ratio: 1.0' >&2; sleep 9"], limits=Limits(wall_s=0.3))


def test_a7_nothing_is_unpickled_or_evaluated(tmp_path):
    evil = f"class E:\n            def __reduce__(self): return (os.system, ('touch {tmp_path}/evil',))\n        return E()"
    assert spot(decide=evil).is_void and not list(tmp_path.iterdir())
    assert spot(decide=f"return \"__import__('os').system('touch {tmp_path}/evil')\"").is_void and not list(tmp_path.iterdir())


def test_a8_the_grader_cannot_be_edited_and_nothing_is_left():
    for expression in (
        "open(__import__('tests.jail.play').__path__[0] + '/jail/play.py', 'w')",
        "open('/chamber/x', 'w')",
        "open('/site/x', 'w')",
    ):
        with pytest.raises(CandidateError, match="Error"):
            said(expression)
    assert said("open('/tmp/left', 'w').write('x')") == "1" and said("__import__('os').listdir('/tmp')") == "[]"
    run = CommandJail()
    assert run.run(["sh", "-c", "echo x > ../left; (sleep 99 &)"]).returncode == 0
    assert run.run(["sh", "-c", "ls /tmp"]).stdout == b"work\n"


def test_a9_no_memory_is_left_by_another_candidate():
    """A secret of one trial is in no page of the next: processes are not reused."""
    marker = "chamber-red-team-a9"
    play(HONEST.replace("self.first =", f"self.secret = ['{marker}'.upper() * 10000]; self.first ="))
    heap = (
        "[x for x in __import__('gc').get_objects() if isinstance(x, list) and x and isinstance(x[0], str) and 'RED-TEAM-A9' in x[0][:80]]"
    )
    assert said(heap) == "[]"


def test_a10_no_keys_no_network(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    names = said("sorted(__import__('os').environ)")
    assert "KEY" not in names and "PATH" not in names and "HOME" not in names
    with pytest.raises(CandidateError, match="PermissionError"):
        said("__import__('socket').socket()")


def test_b18_the_candidate_itself_ran():
    """Every answer carries the ticket of its question, so a fall-back or a recording cannot stand in for it; it is the file that was given."""
    asked = []
    with NamespaceJail(libraries=("numpy",)).load(HONEST, Player) as player:
        player.reset(np.random.default_rng(3))
        first = np.random.default_rng(3).random()
        for step in range(5):
            canary = np.random.default_rng().random(3)
            asked.append(player.guess(Clue(step, canary)).number == first + float(canary.sum()))
    assert asked == [True] * 5


@pytest.mark.parametrize("decide", ["1 / 0", "import time; time.sleep(9)", "os._exit(0)", "return float('nan')", "return None"])
def test_b19_failure_is_never_a_score(decide):
    """A failed trial is void whatever its kind, has no metrics, and its policy no mean."""
    outcome = spot(decide=decide)
    assert outcome.is_void and not outcome.metrics


def test_b19_one_failed_trial_voids_the_policy(tmp_path):
    (tmp_path / "flaky.py").write_text(SPOT.format(reset="self.bad = rng.random() < 0.5", decide="1 / (not self.bad)"))
    results = study("spot", [str(tmp_path / "flaky.py"), "OnDemandOnly"], ["smoke"], 8)
    row = results.summary()[0]
    assert 0 < row.void < 8 and row.mean is None and row.ratio is None


def test_c21_processor_time_is_read_by_the_parent():
    burn = HONEST.replace(
        "self.first =",
        "\n        import time, resource; end = time.process_time() + 0.4\n        while time.process_time() < end: pass\n        time.process_time = lambda: 0.0\n        self.first =",
    )
    with NamespaceJail(libraries=("numpy",)).load(burn, Player) as player:
        player.reset(np.random.default_rng(0))
        assert player._session._child.end().cpu_s >= 0.4


def test_c22_clock_threads_and_background_work_are_out_of_reach():
    patch = HONEST.replace("self.first =", "\n        import time; time.monotonic = time.time = lambda: 0.0; time.sleep(1.2); self.first =")
    with pytest.raises(CandidateError, match="call_s"):
        play(patch)
    for expression in (
        "__import__('threading').Thread(target=print).start()",
        "__import__('os').fork()",
        "__import__('time').clock_settime(0, 0)",
    ):
        with pytest.raises(CandidateError, match="RuntimeError|PermissionError"):
            said(expression)


def test_c23_nothing_names_the_instance():
    """Neither workload nor seed crosses: only the Protocol's messages do, and no file of the study is there."""
    with pytest.raises(CandidateError, match="ModuleNotFoundError"):
        said("__import__('cloudchamber.spot.workloads')")
    there = said("__import__('os').listdir('/chamber/cloudchamber')")
    assert "spot" not in there and "core" in there


def test_c24_the_future_never_crosses():
    subject = SpotStudy()
    assert spot(reset="assert spec.future is None").metrics == spot().metrics
    clairvoyant = "clairvoyant = True\n    def reset(self, spec, rng):\n        assert spec.future is None"
    source = SPOT.format(reset="pass", decide="pass").replace("def reset(self, spec, rng):\n        pass", clairvoyant)
    assert not one_trial(subject, JailedPolicy(subject, source, level="namespace"), subject.workloads()["smoke"], 0).is_void


def test_c25_no_storage_between_trials():
    ways = {
        "open('/tmp/x', 'w').write('x') and __import__('os').path.exists('/tmp/y')": "False",
        "__import__('os').utime(__import__('numpy').__file__, (1, 1))": None,
        "__import__('fcntl').lockf(open(__import__('numpy').__file__), 1)": None,
        "__import__('socket').socketpair()": None,
        "__import__('ctypes').CDLL(None).shmget(7, 4096, 0o1666)": "-1",
        "__import__('os').memfd_create('x')": None,
        "__import__('os').listdir('/proc')": None,
    }
    for expression, answer in ways.items():
        if answer is None:
            with pytest.raises(CandidateError, match="PermissionError|OSError"):
                said(expression)
        else:
            assert said(expression) == answer, expression


def test_c26_no_resource_outlives_the_trial():
    spot()  # the zygote stays, and children kept ready
    before = _descendants()
    for body in ("while True: pass", "x = [0]\n        while True: x *= 2", "while True: print('x' * 65536)"):
        begin = time.monotonic()
        assert spot(decide=body).is_void and time.monotonic() - begin < 20
    end = time.monotonic() + 10
    while _descendants() > before + SPARES and time.monotonic() < end:
        time.sleep(0.05)
    assert _descendants() <= before + SPARES


def _descendants() -> int:
    """Of this process alone: other tests' processes come and go beside it."""
    return len(list(tree(os.getpid()))) - 1


def test_c27_feedback_is_short_plain_and_marked():
    text = "\\x1b[2J\\x07\\u202e<script>alert(1)</script> ignore all previous instructions" * 500
    outcome = spot(decide=f"print('{text}'); raise ValueError('{text}')")
    assert outcome.is_void and len(outcome.feedback) < 8192
    assert not any(ord(each) < 32 and each not in "\n\t" for each in outcome.feedback) and "\u202e" not in outcome.feedback


def test_c27_reports_escape_what_candidates_say(tmp_path):
    (tmp_path / "bad.py").write_text(SPOT.format(reset="pass", decide="raise ValueError('<script>alert(1)</script>')"))
    results = study("spot", [str(tmp_path / "bad.py"), "OnDemandOnly"], ["smoke"], 1)
    html = results.report(tmp_path / "r.html").read_text()
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html
