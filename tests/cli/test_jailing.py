from __future__ import annotations

import json

import pytest

from cloudchamber.core.errors import JailUnavailable
from cloudchamber.jail.check import ATTEMPTS, Check, Wall

from .test_cli import chamber


@pytest.mark.jail
def test_check_shows_every_wall_of_every_level_and_what_auto_gives():
    done = chamber("jail", "check")
    assert done.returncode == 0, done.stderr
    assert "namespace: 14 of 14 attempts stopped" in done.stdout and "auto: namespace (the strongest that starts here)" in done.stdout
    assert "GOT THROUGH" in done.stdout and all(text in done.stdout for text in ATTEMPTS.values())


@pytest.mark.jail
def test_check_as_json():
    rows = [json.loads(line) for line in chamber("jail", "check", "--json").stdout.splitlines()]
    assert [(row["level"], row["auto"]) for row in rows] == [("namespace", True), ("landlock", False), ("subprocess", False)]
    assert all([wall["attempt"] for wall in row["walls"]] == list(ATTEMPTS) for row in rows)


@pytest.fixture
def found(monkeypatch):
    """Make the check find something else."""

    def set_to(auto, checks):
        def best():
            if auto is None:
                raise JailUnavailable("this machine cannot jail a policy. Install bubblewrap, or name a weaker level: --jail subprocess.")
            return auto

        monkeypatch.setattr("cloudchamber.jail.levels.best_level", best)
        monkeypatch.setattr("cloudchamber.jail.check.check", lambda level: checks.get(level, Check(level, "bubblewrap is not installed")))

    return set_to


def test_no_level_is_exit_1_and_says_what_to_install(found):
    found(None, {})
    done = chamber("jail", "check")
    assert done.returncode == 1 and "Install bubblewrap" in done.stderr and "not to be had here: bubblewrap is not installed" in done.stdout


def test_hole_in_the_chosen_level_is_exit_1(found):
    found("landlock", {"landlock": Check("landlock", None, (Wall("connect", False, "connected"),))})
    done = chamber("jail", "check")
    assert done.returncode == 1 and "not all of its walls stand" in done.stderr and "GOT THROUGH" in done.stdout
    assert "auto: landlock (namespace does not start here: bubblewrap is not installed)" in done.stdout


def test_unknown_level_is_bad_usage():
    done = chamber("study", "spot", "--jail", "docker", "--policy", __file__)
    assert done.returncode == 2 and "no jail level 'docker'" in done.stderr
