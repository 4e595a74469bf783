"""The code in README and documentation runs, its commands exist, and its docstrings' examples are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import cloudchamber
from cloudchamber.cli import build
from cloudchamber.cli.evolving import expanded

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python(?:[^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = {path.relative_to(ROOT).as_posix(): PYTHON.findall(path.read_text()) for path in PAGES}


@pytest.mark.parametrize("page", [name for name, blocks in BLOCKS.items() if blocks])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in BLOCKS[page]:
        code = re.sub(r'^--8<-- "(.+)"$', lambda match: (ROOT / match[1]).read_text(), block, flags=re.M)
        exec(compile(code, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_are_ones_chamber_knows(page):
    """Every `chamber ...` line of a shell block parses: its command exists and has these options."""
    import typer

    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["chamber"]:
                continue
            words = expanded(words[1:])
            group = typer.main.get_command(build(words))
            while hasattr(group, "commands"):
                assert words and words[0] in group.commands, line
                group, words = group.commands[words[0]], words[1:]
            known = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
            options = [word.partition("=")[0] for word in (words[: words.index("--")] if "--" in words else words) if word.startswith("--")]
            assert set(options) <= known | {"--help"}, line


def _modules():
    for module in pkgutil.walk_packages(cloudchamber.__path__, "cloudchamber."):
        if "__main__" not in module.name:
            yield module.name


@pytest.mark.parametrize("name", ["cloudchamber", *_modules()])
def test_docstring_examples_are_true(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={}).failed == 0


@pytest.mark.parametrize("name", ["cloudchamber", *_modules()])
def test_every_module_says_what_it_is(name):
    assert (importlib.import_module(name).__doc__ or "").strip()


def test_limits_of_the_jail_are_told_with_their_defaults():
    from dataclasses import fields

    from cloudchamber.jail import Limits

    lines = (ROOT / "docs" / "jail.md").read_text().splitlines()
    names, _, values = next(lines[at : at + 3] for at, line in enumerate(lines) if line.startswith("| limit |"))
    told = dict(zip([each.strip(" `") for each in names.split("|")[2:-1]], [each.strip() for each in values.split("|")[2:-1]], strict=True))
    units = {"s": 1.0, "MiB": 2**20, "GiB": 2**30}
    for each in fields(Limits):
        number, unit = told.pop(each.name).split()
        assert float(number) * units[unit] == each.default
    assert told == {}
