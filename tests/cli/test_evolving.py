from __future__ import annotations

import json

import pytest

from cloudchamber.cli.evolving import expanded
from cloudchamber.core import RESERVED_NAMES, registry
from cloudchamber.core.errors import InputError
from cloudchamber.core.registry import load_study
from cloudchamber.evolve.store import Store

from ..evolve.endpoint import CANARY
from .test_cli import chamber

RUN = ("--workload", "smoke", "--from", "PrismGreedy", "--trials", "2,1,2", "--seed", "1", "--jail", "none")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A run of five evaluations."""
    path = tmp_path_factory.mktemp("runs") / "run.db"
    done = chamber("evolve", "placement", *RUN, "--evaluations", "5", "--store", str(path), "--json")
    assert done.returncode == 0, done.stderr
    path.with_suffix(".json").write_text(done.stdout)
    return path


def started(tmp_path):
    """A run that is only begun, for ask and tell."""
    path = tmp_path / "asked.db"
    done = chamber("evolve", "placement", *RUN, "--evaluations", "1", "--store", str(path), "--json")
    assert done.returncode == 0, done.stderr
    return path


def asked(path, *more):
    done = chamber("evolve", "ask", "--store", str(path), "--evaluations", "50", *more)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def told(path, task, source, tmp_path):
    (tmp_path / "mine.py").write_text(source)
    return chamber("evolve", "tell", "--store", str(path), "--evaluations", "50", "--note", "mine", task, str(tmp_path / "mine.py"))


def test_json_is_the_verdict_and_nothing_else(store):
    found = json.loads(store.with_suffix(".json").read_text())
    assert found["study"] == "placement" and found["evaluations"] == 5 and found["store"] == str(store)
    text = json.dumps(found)
    assert "held" in text or "verdict" in text
    assert Store(store, is_reader=True).evaluations() == 5


def test_run_without_a_jail_warns_on_standard_error(tmp_path):
    done = chamber("evolve", "placement", *RUN, "--evaluations", "1", "--store", str(tmp_path / "a.db"))
    assert done.returncode == 0 and "do not trust the figures" in done.stderr
    assert "winner" in done.stdout and "1 evaluations" in done.stdout and "chamber evolve export --store" in done.stdout


def test_resume_goes_on_with_a_larger_budget_and_ends_as_an_undisturbed_run(store, tmp_path):
    part = tmp_path / "part.db"
    assert chamber("evolve", "run", "placement", *RUN, "--evaluations", "2", "--store", str(part), "--json").returncode == 0
    done = chamber("evolve", "resume", "--store", str(part), "--evaluations", "5", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["evaluations"] == 5
    assert Store(part, is_reader=True).dump() == Store(store, is_reader=True).dump()


def test_show_lists_the_best_and_counts_all(store):
    done = chamber("evolve", "show", "--store", str(store))
    assert done.returncode == 0 and "candidate" in done.stdout and "PrismGreedy" in done.stdout and "archived" in done.stdout
    found = json.loads(chamber("evolve", "show", "--store", str(store), "--json").stdout)
    assert found["study"] == "placement" and sum(found["counts"].values()) >= 6 and found["verdict"]


def test_show_one_candidate_with_its_source_and_nothing_hidden(store):
    done = chamber("evolve", "show", "--store", str(store), "1")
    assert done.returncode == 0 and done.stdout.startswith("candidate 1 by start") and "class PrismGreedy" in done.stdout
    found = json.loads(chamber("evolve", "show", "--store", str(store), "1", "--json").stdout)
    assert found["number"] == 1 and "validation" not in found
    missing = chamber("evolve", "show", "--store", str(store), "999")
    assert missing.returncode == 2 and "no candidate 999" in missing.stderr


def test_export_writes_a_file_that_study_takes(store, tmp_path):
    target = tmp_path / "winner.py"
    done = chamber("evolve", "export", "--store", str(store), str(target))
    assert done.returncode == 0 and str(target) in done.stdout and "Found by" in target.read_text()
    rows = chamber("study", "placement", "--workload", "smoke", "--policy", str(target), "--jail", "none", "--seeds", "1", "--json")
    assert rows.returncode == 0 and json.loads(rows.stdout)["void"] is None
    again = chamber("evolve", "export", "--store", str(store), str(target))
    assert again.returncode == 2 and "exists already" in again.stderr
    shown = chamber("evolve", "export", "--store", str(store))
    assert shown.stdout.strip() == target.read_text().strip()


def test_ask_and_tell_take_a_proposal_from_outside(tmp_path):
    path = started(tmp_path)
    first, second, third = asked(path, "-n", "3")
    assert first["study"] == "placement" and "class Instance" in first["protocol"] and first["parents"][0]["source"]
    assert first["task"] in first["answer"] and "validation" not in first["parents"][0]
    source = first["parents"][0]["source"] + "\n\nUNUSED = 31\n"
    done = told(path, first["task"], source, tmp_path)
    verdict = json.loads(done.stdout)
    assert done.returncode == 0 and verdict["status"] in ("scored", "archived") and verdict["score"] > 0
    void = told(path, second["task"], source.replace("UNUSED = 31", "raise KeyError('oops')"), tmp_path)
    assert void.returncode == 1 and json.loads(void.stdout)["status"] == "void" and "oops" in json.loads(void.stdout)["reason"]
    rejected = told(path, third["task"], "import os", tmp_path)
    assert rejected.returncode == 1 and json.loads(rejected.stdout)["status"] == "rejected"
    twice = told(path, first["task"], source, tmp_path)
    assert twice.returncode == 2 and "told already" in twice.stderr and twice.stdout == ""
    nobody = told(path, "nobody", source, tmp_path)
    assert nobody.returncode == 2 and "no task 'nobody'" in nobody.stderr


def test_tell_says_that_a_file_cannot_be_read(store, tmp_path):
    done = chamber("evolve", "tell", "--store", str(store), "x", str(tmp_path / "none.py"))
    assert done.returncode == 2 and "cannot read" in done.stderr
    (tmp_path / "latin.py").write_bytes(b"\xff\xfe")
    assert chamber("evolve", "tell", "--store", str(store), "x", str(tmp_path / "latin.py")).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("placemint",), "placement"),
        (("placement", "--proposer", "tuna"), "tune"),
        (("placement", "--archive", "tops"), "top"),
        (("placement", "--workload", "smoky"), "smoke"),
        (("placement", "--from", "PrismGredy"), "PrismGreedy"),
        (("placement", "--from", "nothing.py:Class"), "no policy file"),
        (("placement", "--trials", "1,2"), "3 whole numbers"),
        (("placement", "--trials", "1.5,2,2"), "whole"),
        (("placement", "--trials", "inf,2,2"), "whole"),
        (("placement", "--evaluations", "0"), "above 0"),
        (("placement", "--proposer", "diff"), "model"),
        (("ask", "--store", "none.db"), "name a study"),
        (("resume", "--store", "none.db"), "none.db"),
        (("show", "--store", "none.db"), "none.db"),
        (("export", "--store", "none.db"), "none.db"),
    ],
)
def test_bad_usage_says_what_is_allowed_and_leaves_no_file(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jail = ("--jail", "none", "--store", "new.db") if arguments[0].startswith("place") else ()
    done = chamber("evolve", *arguments, *jail)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""
    assert not (tmp_path / "none.db").exists()


def test_class_that_is_not_in_the_file_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("class A:\n    pass\n")
    done = chamber("evolve", "placement", "--from", f"{tmp_path / 'mine.py'}:B", "--jail", "none", "--store", str(tmp_path / "x.db"))
    assert done.returncode == 2 and "no class 'B'" in done.stderr


def test_evolve_study_is_short_for_evolve_run_study():
    assert expanded(["evolve", "spot", "--json"]) == ["evolve", "run", "spot", "--json"] == expanded(["evolve", "run", "spot", "--json"])
    for name in RESERVED_NAMES:
        assert expanded(["evolve", name, "x"]) == ["evolve", name, "x"]
    assert expanded(["evolve", "--help"]) == ["evolve", "--help"] and expanded(["study", "spot"]) == ["study", "spot"]


def test_both_ways_to_run_give_the_same_run(store, tmp_path):
    path = tmp_path / "same.db"
    done = chamber("evolve", "run", "placement", *RUN, "--evaluations", "5", "--store", str(path), "--json")
    ours, theirs = (json.loads(text) for text in (done.stdout, store.with_suffix(".json").read_text()))
    assert {key: value for key, value in ours.items() if key not in ("store", "wall_s")} == {
        key: value for key, value in theirs.items() if key not in ("store", "wall_s")
    }


def test_every_command_of_the_group_is_a_reserved_name():
    listed = chamber("evolve", "--help").stdout
    assert all(name in listed for name in RESERVED_NAMES)


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_a_study_with_a_reserved_name_is_refused(name, monkeypatch):
    point = registry._points("cloudchamber.studies")["placement"]
    monkeypatch.setattr(registry, "_points", lambda group: {name: point})
    with pytest.raises(InputError, match="a command of `chamber evolve`"):
        load_study.__wrapped__(name)


def test_header_says_what_is_searched_on_and_how(tmp_path):
    path, winner = tmp_path / "a.db", tmp_path / "winner.py"
    free = [each for each in RUN if each not in ("--seed", "1")]
    done = chamber("evolve", "placement", *free, "--evaluations", "1", "--store", str(path), "--export", str(winner))
    seed = Store(path, is_reader=True)["settings"]["seed"]
    assert f"study placement, from PrismGreedy, seed {seed}" in done.stderr, "a drawn one too"
    for words in ("smoke (2+1+2)", "proposers tune, mutate, splice", "jail none", "budget 1 evaluations", f"run {path}"):
        assert words in done.stderr
    assert f"Run: {path}. Winner: {winner}" in done.stdout


def test_a_dead_endpoint_is_told_at_once_and_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("cloudchamber.evolve.client.WAIT_S", 0.01)
    monkeypatch.setattr("cloudchamber.evolve.client._taken", {})
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    path = tmp_path / "dead.db"
    model = ("--model", "gpt-5-mini", "--base-url", "http://127.0.0.1:9/v1")
    done = chamber("evolve", "placement", *RUN, *model, "--evaluations", "3", "--store", str(path))
    first = [line for line in done.stderr.splitlines() if "the model cannot be reached" in line]
    assert done.returncode == 0 and first and len(first) == len({line.split(": ")[1] for line in first})
    assert all("gpt-5-mini" in line and line.endswith("; others go on.") for line in first)
    shown = chamber("evolve", "show", "--store", str(path))
    for text in (done.stdout, shown.stdout):
        assert text.count("Could not work (times)") == 1 and "127.0.0.1:9" in text
    data = chamber("evolve", "show", "--store", str(path), "--json")
    assert all("cannot connect" in each["last"] for each in json.loads(data.stdout)["unavailable"].values())
    monkeypatch.setattr("cloudchamber.evolve.search.PATIENCE_S", 0.5)
    alone = chamber("evolve", "placement", *RUN, *model, "--proposer", "diff", "--store", str(tmp_path / "alone.db"))
    assert alone.returncode == 1 and "no other can go on" in alone.stderr
    assert "no proposer has worked for 0 s (diff: the model cannot be reached" in alone.stderr
    for each in (done, shown, data, alone):
        assert CANARY not in each.stdout + each.stderr


def test_a_model_without_an_endpoint_names_the_option(tmp_path):
    done = chamber("evolve", "placement", *RUN, "--model", "foo", "--store", str(tmp_path / "a.db"))
    assert done.returncode == 2 and "--base-url on the command line" in done.stderr


def test_ask_refuses_the_run_of_another_study(store):
    done = chamber("evolve", "ask", "spot", "--store", str(store))
    assert done.returncode == 2 and "is a run of study 'placement', not of 'spot'" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("command", ["placement", "resume", "show", "ask", "export"])
def test_a_folder_or_a_damaged_run_is_one_line(command, store, tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    bad = tmp_path / "bad.db"
    data = bytearray(store.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    bad.write_bytes(data)
    more = RUN if command == "placement" else ()
    for path, words in ((folder, "is a folder"), (bad, "is damaged")):
        done = chamber("evolve", command, *more, "--store", str(path))
        lines = [line for line in done.stderr.splitlines() if "warning" not in line]
        assert done.returncode == 2 and len(lines) == 1 and words in lines[0] and str(path) in lines[0] and done.stdout == ""
    assert not folder.with_name("runs.lock").exists()


@pytest.mark.parametrize("command", ["resume", "show", "ask"])
def test_an_empty_file_is_no_run(command, tmp_path):
    (tmp_path / "empty.db").touch()
    done = chamber("evolve", command, "--store", str(tmp_path / "empty.db"))
    assert done.returncode == 2 and "not the file of a run; `chamber evolve STUDY --store" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["empty.db"]
