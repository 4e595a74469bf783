from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cloudchamber.cli.redteaming import red_team_command
from cloudchamber.core.errors import InputError, UnknownName
from cloudchamber.core.registry import study_names
from cloudchamber.evolve import redteam
from cloudchamber.evolve.attacks import ITEMS, NOT_HERE, attacks_on
from cloudchamber.evolve.redteam import Canaries, RedTeam, Row, red_team
from cloudchamber.jail.limits import Limits

from .machines import study as toys

SOME = (
    *("patch verifier: frames", "change inputs", "environment", "files: write", "fail: at the first call", "inject text"),
    *("answer: nothing", "answer: its own score", "answer: blank", "forge frames: extra", "remember: in files"),
)
QUICK = ("broadcast", "placement")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(redteam, "SMALL", Limits(cpu_s=1.0, wall_s=4.0, call_s=0.7, memory=256 << 20, output=1 << 20))


def names(found):
    return {row.attack for row in found.gains}


@pytest.mark.parametrize("study", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in study_names()])
def test_no_usual_attack_gains_on_a_registered_study(study):
    found = red_team(study, attacks=SOME)
    assert not found.gains, found.table()
    assert {row.verdict for row in found.rows} >= {"void", "nothing"}


@pytest.mark.slow
@pytest.mark.parametrize("study", study_names())
def test_no_attack_at_all_gains_on_a_registered_study(study):
    found = red_team(study)
    assert not found.gains, found.table()


@pytest.mark.slow
def test_no_attack_gains_on_a_sound_verifier():
    found = red_team(toys.Sound())
    assert not found.gains, found.table()
    assert {"floor: First", "honest: again"} <= {row.attack for row in found.rows}


def test_every_known_attack_is_tried_or_told_why_not():
    with Canaries() as canaries:
        tried = {item for attack in attacks_on(toys.Sound(), canaries) for item in attack.items} | {"B15", "A3"}
    assert tried | set(NOT_HERE) == set(ITEMS)
    assert not tried & set(NOT_HERE)


class TestBrokenVerifiers:
    def test_one_that_trusts_a_number_of_the_answer(self):
        for study in (toys.Trusting(), toys.TrustingWithoutBound()):
            found = red_team(study, attacks=["change choose.expected_s"])
            assert {"change choose.expected_s: zero", "change choose.expected_s: half"} <= names(found)

    def test_one_that_skips_failures(self):
        found = red_team(toys.Skipping(), attacks=["fail: ", "change choose.machine: far"])
        assert "fail: at the second call" in names(found)
        assert any("went unpunished" in row.reason for row in found.gains)

    def test_one_that_shares_mutable_state(self):
        found = red_team(toys.Sharing(), attacks=["change choose.machine: next"])
        assert names(found) == {"change choose.machine: next"}
        assert "the honest policy scores" in found.gains[0].reason

    def test_one_that_never_asks(self):
        assert "the policy was never asked" in red_team(toys.Vacuous(), attacks=["answer: nothing"]).gains[0].reason

    def test_one_that_lets_a_fallback_answer(self):
        assert names(red_team(toys.Peeking(), attacks=["fail: at the second"])) == {"fail: at the second call"}


class TestCanaries:
    """Behind the weakest walls the attackers have the user's rights, so the canaries must tell."""

    @pytest.fixture(autouse=True)
    def _silent(self, recwarn):
        yield

    def test_tell_what_was_reached_and_by_whom(self):
        found = red_team(
            toys.Sound(), "subprocess", ["environment", "files", "network", "processes", "memory", "remember: in files", "future"]
        )
        reasons = {row.attack: row.reason for row in found.gains}
        assert reasons["environment"] == reasons["files: read"] == "it read a secret from outside"
        assert "a library" in reasons["files: write"] or "it wrote to files outside" in reasons["files: write"]
        assert "127.0.0.1" in reasons["network"]
        assert reasons["processes: end"] == "it ended another process"
        assert "an earlier trial left" in reasons["remember: in files"]
        assert not {"future", "memory: left behind"} & set(reasons)

    def test_are_cleared_away(self):
        with Canaries() as canaries:
            folder, victim = canaries.folder, canaries.victim
            assert os.environ["CHAMBER_CANARY"] == canaries.secret
        assert not folder.exists() and victim.poll() is not None and "CHAMBER_CANARY" not in os.environ


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch):
        monkeypatch.setattr("cloudchamber.core.registry.load_study", lambda name: getattr(toys, name)())
        app = typer.Typer()
        app.command()(red_team_command)
        return lambda *arguments: CliRunner().invoke(app, arguments)

    def test_a_broken_verifier_makes_exit_code_1(self, run):
        done = run("Trusting", "--attack", "change choose.expected_s: zero", "--attack", "answer: text")
        assert done.exit_code == 1 and "GAIN" in done.stdout and "A5" in done.stdout

    def test_a_sound_one_makes_exit_code_0(self, run):
        done = run("Sound", "--attack", "change choose.expected_s: zero", "--json")
        assert done.exit_code == 0
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert rows[0]["verdict"] == "nothing" and {"B17", "C21", "C28"} == {row["items"][0] for row in rows[1:]}


def test_table_cuts_no_name_and_no_word():
    name, items = "change choose.expected_seconds_of_all: zero", ("A1", "A10", "B15", "C22", "C26")
    why = "it reached " + "something " * 30
    lines = RedTeam("toy", "none", "Honest", (Row(name, "what", items, "void", why), Row("b", "what", ("A1",), "gain", "short"))).table()
    assert name in lines and ",".join(items) in lines and "something ..." in lines
    starts = {line.index(each) for line, each in zip(lines.splitlines(), ("verdict", "GAIN", "void"), strict=False)}
    assert len(starts) == 1, "columns stand one below the other"


def test_the_letters_of_items_are_told_on_the_page():
    text = (Path(__file__).parents[2] / "docs" / "evolve.md").read_text()
    section = text.split("## Attack it")[1].split("\n## ")[0]
    assert all(f"**{letter}**" in section for letter in {item[0] for item in ITEMS})


def test_refuses_what_cannot_be_done():
    with pytest.raises(UnknownName, match="no attack named 'nonsense'"):
        red_team(toys.Sound(), attacks=["nonsense"])
    with pytest.raises(InputError, match="end, hang and fill the process"):
        red_team(toys.Sound(), "none")
