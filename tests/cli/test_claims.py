import json
import sys
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from cloudchamber.cli.claims import claims
from cloudchamber.core import datasets, registry
from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.errors import ChamberError, InputError, UnknownName
from cloudchamber.core.evidence import store
from cloudchamber.core.outcome import Metric

SCRIPT = """
import json, pathlib, sys
pathlib.Path(__file__).with_name("calls").open("a").write("x")
for seed in range(4):
    for policy, cost in ("A", 1.0 + seed / 100), ("B", 2.0):
        print(json.dumps({"study": "toy", "workload": "w", "policy": policy, "seed": seed, "cost_usd": cost, "bound": 1.0, "ratio": cost,
                          "void": None, "generated": False, "evidence": "simulated"}))
"""


class Toy:
    name = "toy"

    def __init__(self, claims):
        self.claims = claims

    def datasets(self):
        return ("data",)


class Silent(Toy):
    name = "silent"


def claim(script, name="toy-cheap", high=1.1, **changes):
    fields = {
        "id": name,
        "text": "A is cheap.",
        "source": Source("Toy", "Nowhere", "2025"),
        "published": Published("5 %", 1.05),
        "quantity": Metric("cost_usd", "USD"),
        "comparator": "the optimum",
        "population": Population("toy", ("w",)),
        "tolerance": Tolerance("2025-01-01", high=high),
        "measure": Measure("ratio", policies=("A",)),
        "kind": "simulated",
        "reproduce": ("python", str(script)),
    }
    return Claim(**{**fields, **changes})


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Two claims on one command, an empty packaged store, a dataset whose hash can be changed."""
    script = tmp_path / "rows.py"
    script.write_text(SCRIPT)
    found = SimpleNamespace(script=script, calls=tmp_path / "calls", store=tmp_path / "mine", sha="d1", folder=tmp_path)
    found.studies = {"toy": Toy((claim(script), claim(script, "toy-cheaper", high=1.001)))}
    monkeypatch.setattr(registry, "study_names", lambda: list(found.studies))
    monkeypatch.setattr(registry, "load_study", lambda name: found.studies[name])
    monkeypatch.setattr(datasets, "fingerprint", lambda name: {"name": name, "licence": "MIT", "sha256": found.sha})
    monkeypatch.setattr(store, "PACKAGED", tmp_path / "packaged")
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command("claims")(claims)
    found.call = lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])
    return found


def test_untested_claims_are_listed_and_pass_the_check(world):
    done = world.call("--check")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].split() == ["claim", "published", "ours", "evidence", "verdict"]
    assert done.stdout.splitlines()[2].split() == ["toy-cheap", "5", "%", "simulated", "untested"]


def test_run_runs_a_shared_command_once_and_appends_a_record_per_claim(world):
    done = world.call("--run", "--store", world.store)
    assert done.exit_code == 0, done.output
    assert world.calls.read_text() == "x"
    assert len(list(world.store.glob("*.json"))) == 2
    assert "1.015 [1.0" in done.stdout
    assert "fails (outside the tolerance)" in done.stdout
    world.call("toy-cheap", "--run", "--store", world.store)
    assert len(list(world.store.glob("*.json"))) == 3


def test_same_command_same_estimate_bit_for_bit(world):
    world.call("--run", "--store", world.store)
    world.call("--run", "--store", world.store)
    results = [json.loads(path.read_text())["result"] for path in world.store.glob("toy-cheap.*.json")]
    assert results
    assert all(result == results[0] for result in results)


def test_check_fails_on_a_failing_claim_and_names_it(world):
    world.call("--run", "--store", world.store)
    done = world.call("--check", "--store", world.store)
    assert done.exit_code == 1
    assert "claim 'toy-cheaper' fails: outside the tolerance" in done.output
    assert world.call("toy-cheap", "--check", "--store", world.store).exit_code == 0


def test_check_fails_on_changed_data(world):
    world.call("toy-cheap", "--run", "--store", world.store)
    world.sha = "d2"
    done = world.call("toy-cheap", "--check", "--store", world.store)
    assert done.exit_code == 1
    assert "claim 'toy-cheap' is stale: data data changed" in done.output
    world.sha = None  # not on this machine: nothing can be said
    assert world.call("toy-cheap", "--check", "--store", world.store).exit_code == 0


def test_check_fails_on_a_study_without_claims(world):
    world.studies["silent"] = Silent(())
    done = world.call("--check")
    assert done.exit_code == 1
    assert "study 'silent' declares no claim" in done.output
    assert world.call("toy", "--check").exit_code == 0


def test_rows_for_machines(world):
    world.call("--run", "--store", world.store)
    rows = [json.loads(line) for line in world.call("--json", "--store", world.store).stdout.splitlines()]
    assert [row["status"] for row in rows] == ["holds", "fails"]
    assert rows[0]["estimate"] == pytest.approx(1.015)
    assert (rows[0]["n"], rows[0]["evidence"], rows[0]["published"]) == (4, "simulated", "5 %")


@pytest.mark.parametrize("ending", ["md", "json"])
def test_export(world, ending):
    world.call("--run", "--store", world.store)
    target = world.folder / f"claims.{ending}"
    assert world.call("--export", target, "--store", world.store).exit_code == 0
    text = target.read_text()
    assert "toy-cheaper" in text
    assert str(world.folder) not in (text if ending == "md" else json.dumps(json.loads(text)["records"]))
    if ending == "json":
        assert len(json.loads(text)["records"]) == 2


def test_update_rewrites_documents_and_reports_what_is_left(world):
    world.call("--run", "--store", world.store)
    page = world.folder / "page.md"
    page.write_text("It costs 9.999x <!-- claim:toy-cheap -->.\n\n<!-- claims-table:toy -->\n<!-- /claims-table -->\n")
    done = world.call("--update", page, "--store", world.store)
    assert done.exit_code == 0, done.output
    assert page.read_text().startswith("It costs 1.015x <!-- claim:toy-cheap -->.")
    assert "| toy-cheaper | 5 % |" in page.read_text()
    page.write_text("Twice as good: 2x.\n")
    done = world.call("--update", page)
    assert done.exit_code == 1
    assert "line 1: '2x' has no" in done.output


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        (["nonesuch"], UnknownName, "no study or claim named"),
        (["toy-cheep"], UnknownName, "did you mean"),
        (["--export", "claims.pdf"], InputError, ".md or .json"),
        (["--export", "no/such/folder/claims.md"], InputError, "no folder"),
        (["--store", "absent"], InputError, "not a folder"),
        (["--update"], InputError, "none named"),
        (["--update", "absent.md"], InputError, "absent.md"),
        (["--update", "--run"], InputError, "no other option"),
        (["--run"], InputError, "--store DIR"),
    ],
)
def test_bad_usage_is_an_input_error(world, args, error, says):
    done = world.call(*args)
    assert isinstance(done.exception, error)  # main() makes it exit code 2
    assert says in str(done.exception)


def test_a_claim_declared_twice_is_an_input_error(world):
    world.studies["silent"] = Silent((claim(world.script),))
    assert "declared twice" in str(world.call().exception)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import sys; sys.exit('no data')", "exit code 1: no data"),
        ("import sys; print('{}'); sys.exit(3)", "exit code 3"),
        ("print('table')", "does it say --json?"),
        ("", "n = 0"),
        ("print('{\"study\": NaN}')", "said to be"),
    ],
)
def test_a_command_that_fails_is_reported_and_nothing_is_recorded(world, source, says):
    world.script.write_text(source)
    done = world.call("--run", "--store", world.store)
    assert done.exit_code == 1
    assert says in done.output
    assert not list(world.store.glob("*.json"))


def test_void_trials_are_evidence_though_the_command_exits_with_one(world):
    world.script.write_text(SCRIPT.replace('"void": None', '"void": "late" if seed == 2 else None') + "\nsys.exit(1)\n")
    done = world.call("toy-cheap", "--run", "--store", world.store)
    assert done.exit_code == 0
    assert "fails (1 void: late)" in done.stdout


def test_one_broken_command_does_not_lose_the_others_records(world):
    broken = claim(world.folder / "absent.py", "toy-broken")
    world.studies["toy"].claims = (broken, *world.studies["toy"].claims)
    assert world.call("--run", "--store", world.store).exit_code == 1
    assert len(list(world.store.glob("*.json"))) == 2


def test_chamber_commands_run_in_this_interpreter(monkeypatch):
    import subprocess

    from cloudchamber.cli.claims import reproduce

    seen = []
    monkeypatch.setattr(subprocess, "run", lambda args, **_: seen.append(args) or SimpleNamespace(returncode=0, stdout="{}\n", stderr=""))
    assert reproduce(("chamber", "study", "toy", "--json")) == [{}]
    assert seen == [[sys.executable, "-m", "cloudchamber", "study", "toy", "--json"]]
    assert issubclass(InputError, ChamberError)
