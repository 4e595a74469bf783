"""Which files the studies' records depend on, and how long the engine is."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import cloudchamber
from cloudchamber.core.registry import load_study

ROOT = Path(cloudchamber.__file__).parent
ROOMS = {"study.py", "workloads.py", "data.py", "traces.py", "optimum.py", "claims.py", "figures.py", "commands.py"}


@pytest.mark.parametrize("name", ["engine", "engine.prefillonly"])
def test_a_study_names_every_file_its_trials_run(name):
    code = f"""
import sys
from cloudchamber.core.registry import load_study
from cloudchamber.core.parallel import run_task
study = load_study({name!r})
smoke = study.workloads()["smoke"]
run_task(study, study.policies(), smoke, 0)
study.bound(smoke, 0)
print("\\n".join(m.__file__ for n, m in sys.modules.items() if n.startswith("cloudchamber.engine")))
"""
    loaded = {
        Path(line) for line in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    }
    named = {path for pattern in load_study(name).sources for path in ROOT.glob(pattern)}
    assert {path for path in loaded - named if path.name not in ("__init__.py", "claims.py")} == set()


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, comments, or docstrings."""
    source = path.read_text()
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_the_engine_can_be_read_in_an_afternoon():
    """Engine, scheduler policies and executor; the study's rooms, the server and PrefillOnly are beside it."""
    engine = [path for path in [*ROOT.glob("engine/*.py"), *ROOT.glob("engine/policies/*.py")] if path.name not in ROOMS]
    assert sum(map(code_lines, engine)) <= 2500
    assert all(len(path.read_text().splitlines()) <= 400 for path in ROOT.glob("engine/**/*.py"))
