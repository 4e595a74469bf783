from __future__ import annotations

import ast

import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.core.parallel import study as run_study
from cloudchamber.evolve.export import best_number, export, lineage
from cloudchamber.evolve.splits import Point
from cloudchamber.evolve.trials import Opener
from cloudchamber.evolve.verdict import judge

from .test_search import BETTER
from .toy.study import PricingStudy

HOSTILE = [
    '"""\nimport os\nos.abort()\n"""',
    "'''",
    "\\",
    'ends with a quote"',
    "two\nlines\r\nand\x0cmore\u2028of\x85them",
    '\\"\\"\\" + print(1)',
    "\\N{LATIN SMALL LETTER A} \\x",
    "\x00 \x1b[31m \u202e backwards",
    "ä" * 5000,
]


def told(search, source, note=""):
    return search.tell(search.ask()[0].id, source, note=note)


def body(source):
    """The tree without the module's docstring."""
    tree = ast.parse(source)
    assert isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant)
    return ast.dump(ast.Module(tree.body[1:], []))


def test_exported_file_gives_the_figures_of_the_candidate(search_on, tmp_path):
    search = search_on()
    told(search, BETTER.format(rate=2.9))
    export(search.store, tmp_path / "winner.py")
    study = PricingStudy()
    results = run_study(study, [str(tmp_path / "winner.py")], ["smoke"], 3, jail="none")
    for trial in results.trials:
        same = Opener(study, "none").run(search.best().source, Point("smoke", study.workloads()["smoke"], trial.seed, -1))
        assert trial.outcome.violations == () and dict(trial.outcome.metrics) == same.metrics


def test_docstring_tells_the_lineage_in_place_of_the_old_one(search_on):
    search = search_on()
    first = told(search, BETTER.format(rate=1.0), "looks at the age")
    source = export(search.store, None, first.candidate)
    said = ast.get_docstring(ast.parse(source))
    assert "evolve pricing" in said and f"candidate {first.candidate}" in said and "Not judged on held-out trials yet." in said
    assert "- 1, start: BySize" in said and "looks at the age" in said
    assert "Price by size." not in export(search.store, None, 1)
    assert [each.number for each in lineage(search.store.candidate(first.candidate), search.store)] == [1, first.candidate]


def test_docstring_tells_the_verdict(search_on):
    search = search_on()
    told(search, BETTER.format(rate=3.0))
    judge(search)
    assert "Held out: improvement: +" in ast.get_docstring(ast.parse(export(search.store)))


@pytest.mark.parametrize("note", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_notes_do_not_break_out_of_the_docstring(search_on, note):
    search = search_on()
    verdict = told(search, BETTER.format(rate=1.0), note)
    source = export(search.store, None, verdict.candidate)
    assert body(source) == ast.dump(ast.Module(ast.parse(BETTER.format(rate=1.0)).body, []))
    assert len(source) < 2000 and all(character.isprintable() or character == "\n" for character in source)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_reasons_in_a_verdict_do_not_break_out_either(search_on, text):
    search = search_on()
    verdict = told(search, BETTER.format(rate=1.0))
    search.store["verdict"] = [{"candidate": verdict.candidate, "text": f"candidate 2 is void: {text}"}]
    source = export(search.store, None, verdict.candidate)
    assert body(source) == ast.dump(ast.Module(ast.parse(BETTER.format(rate=1.0)).body, []))


@pytest.mark.parametrize("first", ["'''One'''; X = 1\n", '"""One."""  # a comment\n', "'One' 'line'\n", "# before\n'''One.'''\n", "\ufeff"])
def test_whatever_docstring_a_candidate_has_it_is_replaced(search_on, first):
    search = search_on()
    verdict = told(search, first + BETTER.format(rate=1.0))
    if verdict.status == "rejected":
        return
    source = export(search.store, None, verdict.candidate)
    assert "One" not in source and ast.get_docstring(ast.parse(source)).startswith("Found by")


def test_existing_file_is_refused_and_kept(search_on, tmp_path):
    search = search_on()
    (tmp_path / "mine.py").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        export(search.store, tmp_path / "mine.py")
    assert (tmp_path / "mine.py").read_text() == "precious"


def test_only_a_valid_candidate_that_is_there_can_be_exported(search_on):
    search = search_on()
    void = told(search, BETTER.format(rate="no_such_name")).candidate
    with pytest.raises(InputError, match="is void .*no_such_name"):
        export(search.store, None, void)
    with pytest.raises(InputError, match="no candidate 99"):
        export(search.store, None, 99)


def test_a_run_without_a_winner_says_so(search_on):
    search = search_on()
    search.store["best"] = None
    with pytest.raises(InputError, match="no winner"):
        best_number(search.store)
