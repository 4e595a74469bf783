"""Evaluator files of other tools as studies: jailed whole, searched like any study, and marked as what they are."""

from __future__ import annotations

import numpy as np
import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.core.registry import load_study
from cloudchamber.evolve import Budget, Search, Settings, code
from cloudchamber.evolve.importer import MARK, blocks, import_study

EVALUATOR = '''"""Find the lowest point of a bumpy valley."""
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def load(program_path):
    spec = importlib.util.spec_from_file_location("program", program_path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def score(x):
    return float(1.0 / (1.0 + np.sum((np.asarray(x) - 3.0) ** 2)))


def evaluate(program_path):
    program = load(program_path)
    with ThreadPoolExecutor(1) as pool:
        x = pool.submit(program.search).result(timeout=10)
    return {"combined_score": score(x), "x": float(x), "note": "a valley", "runs": np.float64(1)}
'''
PROGRAM = '''"""A program."""
# EVOLVE-BLOCK-START
def search():
    x = 1.0
    step = 0.25
    return x + 2 * step
# EVOLVE-BLOCK-END

SCALE = 17.0


def untouched():
    return 4 + 4
'''


def made(tmp_path, evaluator=EVALUATOR, program=PROGRAM, **options):
    (tmp_path / "valley.py").write_text(evaluator)
    (tmp_path / "initial.py").write_text(program)
    return import_study(tmp_path / "valley.py", tmp_path / "initial.py", **options)


def begun(study, evaluations=6, **settings):
    return Search(study, Settings(trials=(1, 1, 2), seed=3, **settings), budget=Budget(evaluations))


def told(search, source):
    return search.tell(search.ask()[0].id, source)


def changed(expression):
    return PROGRAM.replace("x + 2 * step", expression)


def test_a_search_improves_the_program_between_its_markers_only(tmp_path):
    study = made(tmp_path)
    with begun(study, 12) as search:
        assert search.starts[0].objective == pytest.approx(1 / (1 + 1.5**2))
        search.run()
        best = search.best()
        assert best.objective > search.starts[0].objective
        assert {blocks(each.source)[0] for each in search.store.candidates("status != 'rejected'")} == {blocks(PROGRAM)[0]}
        assert search.store.counts().get("rejected", 0) == 0, "proposals outside the markers are not even told"
        assert any(MARK in note for note in search.notes) and MARK in study.notes[0]
        assert MARK in search.store.candidate(best.number).feedback
        assert "Find the lowest point" in search.problem.text and "def score" in search.problem.text


def test_a_program_is_scored_by_the_evaluator(tmp_path):
    with begun(made(tmp_path)) as search:
        verdict = told(search, changed("3.0"))
        assert verdict.status == "archived" and verdict.is_best
        assert search.store.candidate(verdict.candidate).objective == pytest.approx(1.0)
        assert "a valley" in verdict.feedback
        assert "only the text between" in told(search, PROGRAM.replace("SCALE = 17.0", "SCALE = 18.0")).reason
        assert "not valid Python" in told(search, changed("(")).reason
        assert "ZeroDivisionError" in told(search, changed("1 / 0")).reason
        assert told(search, changed("float('nan')")).status == "void"
        assert told(search, changed("__import__('time').sleep(0) or 'no number'")).status == "void"


def test_a_program_that_patches_the_evaluator_is_marked(tmp_path):
    patch = "(__import__('evaluator').__dict__.update(score=lambda x: 1e12), 0.0)[1]"
    with begun(made(tmp_path)) as search:
        verdict = told(search, changed(patch))
        each = search.store.candidate(verdict.candidate)
        assert each.objective == pytest.approx(1e12), "the evaluator's word is all there is"
        assert MARK in each.feedback and MARK in verdict.feedback and any(MARK in note for note in search.notes)


def test_nothing_gets_out_of_the_jail(tmp_path):
    (tmp_path / "secret").write_text("key")
    evaluator = EVALUATOR.replace("x = pool", f"assert not __import__('os').path.exists({str(tmp_path / 'secret')!r}); x = pool")
    with begun(made(tmp_path, evaluator)) as search:
        assert search.starts[0].score is not None
        verdict = told(search, changed("__import__('socket').create_connection(('127.0.0.1', 1)) and 0"))
        assert verdict.status == "void" and "Error" in verdict.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise KeyError('lost')", "KeyError"),
        ("return {'combined_score': 0.0, 'error': 'it went wrong'}", "the evaluator failed: it went wrong"),
        ("return {'other': 1.0}", "no number named 'combined_score'; it gave other"),
        ("return None", "not numbers by name"),
        ("import os; os._exit(3)", "ended"),
    ],
)
def test_a_failing_evaluator_is_void_never_zero(tmp_path, body, reason):
    with pytest.raises(InputError, match="no starting policy gives a valid result") as error:
        begun(made(tmp_path, f"def evaluate(path):\n    {body}\n"))
    assert reason in str(error.value)


FORMS = {
    "a number": "def evaluate(path):\n    return 0.5\n",
    "openevolve": """
from openevolve.evaluation_result import EvaluationResult

def evaluate(path):
    return EvaluationResult(metrics={"combined_score": 0.5}, artifacts={"log": "x"})
""",
    "shinka": """
import json
from pathlib import Path

def main(program_path, results_dir):
    Path(results_dir, "metrics.json").write_text(json.dumps({"combined_score": 0.5}))
    Path(results_dir, "correct.json").write_text(json.dumps({"correct": True}))
""",
    "stages and files": """
from beside import value

def evaluate_stage1(path):
    return {"combined_score": 0.1}

def evaluate(path):
    return {"combined_score": value}
""",
}


@pytest.mark.parametrize("evaluator", FORMS.values(), ids=FORMS)
def test_the_forms_of_other_tools_are_understood(tmp_path, evaluator):
    (tmp_path / "beside.py").write_text("value = 0.5\n")
    with begun(made(tmp_path, evaluator, files=[tmp_path / "beside.py"])) as search:
        assert search.starts[0].objective == 0.5


def test_a_run_goes_on_with_the_same_evaluator_only(tmp_path):
    settings = Settings(trials=(1, 1, 2), seed=3)
    with Search(made(tmp_path), settings, store=tmp_path / "run.db", budget=Budget(2)) as search:
        search.run()
    with Search(made(tmp_path), store=tmp_path / "run.db", budget=Budget(4)) as search:
        search.run()
        assert search.evaluations == 4
    with pytest.raises(InputError, match="another verifier"):
        Search(made(tmp_path, EVALUATOR.replace("3.0", "4.0")), store=tmp_path / "run.db", budget=Budget(4))


def test_files_that_are_no_evaluator_are_refused_in_words(tmp_path):
    with pytest.raises(InputError, match="has neither evaluate"):
        made(tmp_path, "x = 1\n")
    with pytest.raises(InputError, match="without # EVOLVE-BLOCK-END"):
        made(tmp_path, program="# EVOLVE-BLOCK-START\nx = 1\n")
    with pytest.raises(InputError, match="cannot read"):
        import_study(tmp_path / "none.py", tmp_path / "none.py")


def test_only_open_lines_are_edited():
    text = code.Text(PROGRAM)
    assert [node.value for node in code.literals(text)] == [1.0, 0.25, 2]
    assert len(code.literals(code.Text(PROGRAM.replace("EVOLVE", "OTHER")))) == 6
    assert all(node.lineno < 7 for node, _ in code.editable(text.tree, text.open))


def test_a_study_of_our_own_is_searched_as_before():
    with Search("placement", Settings(start="PrismGreedy", workloads=("smoke",), trials=(1, 1, 2), seed=1), budget=Budget(1)) as search:
        assert "expected one class" in told(search, "x = 1\n").reason
        assert load_study("placement").__doc__.strip()[:40] in search.problem.text
        assert np.isfinite(search.best().score)
