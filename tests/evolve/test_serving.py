"""The commands behind `chamber evolve mcp`, `dashboard` and `--evaluator`, as typer sees them."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from cloudchamber.cli import serving_evolve
from cloudchamber.core.errors import InputError

from .test_importer import EVALUATOR, PROGRAM

APP = typer.Typer()
for name in ("mcp", "dashboard", "import"):
    APP.command(name)(getattr(serving_evolve, f"{name}_command"))


def ran(*words):
    return CliRunner().invoke(APP, [str(word) for word in words])


def test_an_evaluator_is_searched_from_the_command_line(tmp_path):
    (tmp_path / "evaluator.py").write_text(EVALUATOR)
    (tmp_path / "initial.py").write_text(PROGRAM)
    store = tmp_path / "run.db"
    words = ("import", "--evaluator", tmp_path / "evaluator.py", "--program", tmp_path / "initial.py", "--store", store, "--seed", 1)
    done = ran(*words, "--evaluations", 2)
    assert done.exit_code == 0, done.output
    assert "started from 0.307692" in done.output and "score not tamper-proof" in done.output
    assert ran(*words, "--evaluations", 3).exit_code == 0
    assert isinstance(ran(*words, "--metric", "none", "--store", tmp_path / "other.db").exception, InputError)


def test_the_dashboard_prints_its_url_and_takes_the_store(tmp_path, monkeypatch):
    from cloudchamber.evolve import dashboard

    monkeypatch.setattr(dashboard, "serve_dashboard", lambda path, host, port, opened: opened(f"http://{host}:{port}/?token=x"))
    done = ran("dashboard", "--store", tmp_path / "run.db", "--port", 8123, "--no-open")
    assert done.exit_code == 0 and "http://127.0.0.1:8123/?token=x" in done.output and "warning" not in done.output
    assert "is not the loopback" in ran("dashboard", "--store", "x", "--host", "0.0.0.0", "--no-open").output


@pytest.mark.parametrize("words", [("mcp", "--store", "/nowhere/run.db"), ("dashboard", "--store", "/nowhere/run.db", "--no-open")])
def test_a_run_that_is_not_there(words):
    assert isinstance(ran(*words).exception, InputError)
