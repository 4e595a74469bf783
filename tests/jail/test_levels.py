"""Levels: the strongest that stands, weaker ones only by name, with a warning and a stamp."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloudchamber import study
from cloudchamber.core.errors import CandidateError, InputError, JailUnavailable
from cloudchamber.jail import Limits, jail_of, levels, load
from cloudchamber.jail.chaos import ChaosJail
from cloudchamber.jail.files import JailedPolicy
from cloudchamber.jail.levels import InProcess, LandlockJail, NamespaceJail, SubprocessJail
from cloudchamber.spot import SpotPolicy, SpotStudy

from .conftest import HONEST, play
from .play import Clue, Player

SPOT = """
from cloudchamber.spot.model import Decision, Launch
class Mine:
    def reset(self, spec, rng): pass
    def decide(self, obs): return Decision((Launch(0, "on_demand"),))
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def fresh():
    """Forget which level is the best, before and after."""
    levels.best_level.cache_clear()
    yield
    levels.best_level.cache_clear()


@pytest.mark.jail
@pytest.mark.parametrize("jail", [NamespaceJail, LandlockJail, SubprocessJail, InProcess], ids=lambda each: each.level)
def test_every_level_gives_the_same_answers(jail):
    made = jail() if jail is InProcess else jail(libraries=("numpy",))
    assert play(HONEST, jail=made) == play(HONEST, jail=InProcess())


@pytest.mark.jail
def test_auto_is_the_strongest(fresh):
    assert jail_of("auto").level == "namespace"


def test_without_bubblewrap_auto_is_landlock(fresh, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("cloudchamber.jail.launch._pool", {})
    assert jail_of("auto").level == "landlock"
    with pytest.raises(JailUnavailable, match="apt install bubblewrap"):
        NamespaceJail(libraries=()).load(HONEST, Player)


def test_auto_never_falls_to_a_weaker_level(fresh, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("cloudchamber.jail.launch.landlock_version", lambda: 0)
    monkeypatch.setattr("cloudchamber.jail.launch._pool", {})
    with pytest.raises(JailUnavailable, match="--jail subprocess"):
        jail_of("auto")
    with pytest.raises(JailUnavailable):
        JailedPolicy(SpotStudy(), SPOT)


def test_worker_with_a_weaker_jail_fails_instead_of_using_it(fresh, monkeypatch):
    made = JailedPolicy(SpotStudy(), SPOT, level="landlock")
    monkeypatch.setattr("cloudchamber.jail.launch.landlock_version", lambda: 0)
    monkeypatch.setattr("cloudchamber.jail.launch._pool", {})
    with pytest.raises(JailUnavailable, match="no landlock"):
        made()


def test_unknown_level():
    with pytest.raises(InputError, match="no jail level 'docker'"):
        jail_of("docker")


@pytest.mark.parametrize("level", ["subprocess", "none"])
def test_weaker_levels_warn_and_are_stamped(level, tmp_path):
    (tmp_path / "mine.py").write_text(SPOT)
    with pytest.warns(UserWarning, match=f"jail level {level!r}.*all your rights; run only code you trust"):
        results = study("spot", [str(tmp_path / "mine.py"), "OnDemandOnly"], ["smoke"], 1, jail=level)
    assert [json.loads(line)["jail"] for line in results.to_json().splitlines()] == [level, None]
    assert any("ran without a jail" in note and "do not trust" in note for note in results.notes)
    html = results.report(tmp_path / "r.html").read_text()
    assert "ran without a jail" in html


@pytest.mark.jail
def test_jailed_results_are_stamped_without_a_note(tmp_path):
    (tmp_path / "mine.py").write_text(SPOT)
    results = study("spot", [str(tmp_path / "mine.py"), "OnDemandOnly"], ["smoke"], 1)
    assert [trial.jail for trial in results.trials] == ["namespace", None] and not any("jail" in note for note in results.notes)
    mine, builtin = results.trials
    assert mine.outcome.metrics["cost_usd"] == builtin.outcome.metrics["cost_usd"]


@pytest.mark.slow
@pytest.mark.jail
def test_workers_open_their_own_jails(tmp_path):
    (tmp_path / "mine.py").write_text(SPOT)
    one, two = (study("spot", [str(tmp_path / "mine.py")], ["smoke"], 2, n_jobs=n).to_json() for n in (1, 2))
    assert one == two


class TestBadInput:
    def test_not_text(self):
        with pytest.raises(InputError, match="must be text, got bytes"):
            load(b"x", SpotPolicy, level="landlock")

    def test_not_unicode(self):
        with pytest.raises(InputError, match="UTF-8"):
            load("x = '\ud800'", SpotPolicy, level="landlock")

    def test_too_long(self):
        with pytest.raises(InputError, match="at most 1048576"):
            load("#" * (1 << 21), SpotPolicy, level="landlock")

    def test_library_that_is_not_installed(self):
        with pytest.raises(InputError, match="pip install nothing-of-that-name"):
            load(HONEST, Player, level="landlock", libraries=("nothing-of-that-name",))

    @pytest.mark.parametrize("limits", [{"cpu_s": 0}, {"wall_s": float("inf")}, {"memory": 1024}, {"tmp": -1}, {"call_s": True}])
    def test_limits(self, limits):
        with pytest.raises(InputError, match=next(iter(limits))):
            Limits(**limits)

    def test_protocol_of_a_script(self):
        Here = type("Here", (), {"__module__": "__main__", "ask": Player.guess})
        with pytest.raises(InputError, match="cannot see module '__main__'"):
            NamespaceJail(libraries=()).load(HONEST, Here)

    def test_policy_that_does_not_load_is_an_error_of_the_user(self):
        with pytest.raises(InputError, match="lacks decide"):
            JailedPolicy(SpotStudy(), "class A:\n  def reset(self, spec, rng): pass", name="A").check()


class TestChaos:
    def trial(self, seed=0, **chances):
        player = ChaosJail(InProcess(), seed, **chances).load(HONEST, Player)
        player.reset(np.random.default_rng(0))
        return player.guess(Clue(1, np.ones(2)))

    @pytest.mark.parametrize(("chance", "kind"), [("death", "died"), ("truncation", "type"), ("reordering", "protocol")])
    def test_every_fault_is_a_candidate_error_that_stays(self, chance, kind):
        player = ChaosJail(InProcess(), **{chance: 1.0}).load(HONEST, Player)
        for _ in range(2):
            with pytest.raises(CandidateError) as caught:
                player.reset(np.random.default_rng(0))
            assert caught.value.kind == kind

    def test_fault_of_the_host(self):
        with pytest.raises(JailUnavailable):
            self.trial(host=1.0)

    def test_same_seed_same_story(self):
        def story(seed):
            jail, told = ChaosJail(InProcess(), seed, death=0.2, truncation=0.2), []
            for _ in range(20):
                player = jail.load(HONEST, Player)
                try:
                    player.reset(np.random.default_rng(0))
                    told.append(str(player.guess(Clue(1, np.ones(2))).number))
                except CandidateError as error:
                    told.append(error.kind)
            return told

        assert story(1) == story(1) != story(2) and {"died", "type"} <= set(story(1))

    def test_without_chances_nothing_changes(self):
        assert self.trial() == play(HONEST, jail=InProcess(), steps=2)[1] or self.trial().picks == (1,)

    def test_chance_must_be_one(self):
        with pytest.raises(InputError, match="death is a probability"):
            ChaosJail(InProcess(), death=2.0)

    def test_study_survives_and_tries_faults_of_the_host_again(self):
        from cloudchamber.core.parallel import one_trial

        subject, calls = SpotStudy(), []
        jail = ChaosJail(InProcess(), seed=3, host=0.5)

        def make():
            calls.append(1)
            if len(calls) == 3:
                jail._chances["host"] = 0.0
            return jail.load(SPOT, SpotPolicy)

        outcome = one_trial(subject, make, subject.workloads()["smoke"], 0)
        assert not outcome.is_void and len(calls) > 1


@pytest.mark.jail
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, to become somebody else")
@pytest.mark.parametrize("level", ["namespace", "landlock"])
def test_another_user_than_root(level, tmp_path_factory):
    """As user 1234, with the interpreter shown where root's home hides it: both levels stand."""
    import tempfile

    base = Path(sys.base_prefix).resolve()
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(home, 1234, 1234)
    code = f"from cloudchamber.jail.check import check; found = check({level!r}); print(found.problem, found.holes, len(found.walls))"
    script = f"""
        set -e
        mount -t tmpfs -o mode=755 t /mnt; mkdir /mnt/base /mnt/repo; mount --bind {base} /mnt/base; mount --bind {ROOT} /mnt/repo
        if [ ! -x /root ] || [ "$(stat -c %a /root)" = 700 ]; then mount -t tmpfs -o mode=755 t /root; fi
        mkdir -p {base} {ROOT}; mount --bind /mnt/base {base}; mount --bind /mnt/repo {ROOT}
        cd /; exec setpriv --reuid 1234 --regid 1234 --clear-groups --no-new-privs env HOME={home} {sys.executable} -c "$CODE"
    """
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            env={**os.environ, "CODE": code},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split("\n")[0] == "None [] 14", done.stdout + done.stderr
    finally:
        shutil.rmtree(home, ignore_errors=True)
