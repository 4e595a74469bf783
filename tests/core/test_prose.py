from pathlib import Path

import pytest

from cloudchamber.cli.claims import documented
from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.errors import InputError, UnknownName
from cloudchamber.core.evidence.prose import problems, update
from cloudchamber.core.evidence.record import Evidence, Result
from cloudchamber.core.evidence.standing import Standing
from cloudchamber.core.outcome import Metric

ROOT = Path(__file__).parents[2]
DOCUMENTS = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file()]


def standing(name="toy-cheap", estimate=1.0534, interval=(1.01, 1.09), tested=True):
    claim = Claim(
        id=name,
        text="A is cheap.",
        source=Source("Toy", "Nowhere", "2025"),
        published=Published("within 10–12 %, up to 3.96x", 1.1),
        quantity=Metric("cost_usd", "USD"),
        comparator="the optimum",
        population=Population("toy", ("w",)),
        tolerance=Tolerance("2025-01-01", high=1.1),
        measure=Measure("ratio", policies=("A",)),
        kind="simulated",
        reproduce=("chamber",),
    )
    record = (
        Evidence(
            claim=name,
            study="toy",
            text=claim.text,
            source=claim.source,
            published=claim.published,
            quantity="cost_usd",
            unit="USD",
            direction="min",
            comparator=claim.comparator,
            population=claim.population,
            tolerance=claim.tolerance,
            measure=claim.measure,
            assessor="threshold",
            kind="simulated",
            verdict="holds",
            result=Result(n=12, void=0, rows_sha256="a", estimate=estimate, interval=interval),
        )
        if tested
        else None
    )
    return Standing("toy", claim, record, (), int(tested))


TOY = [standing(), standing("toy-usd", 41234.5, (40000.0, 42000.0)), standing("toy-untested", tested=False)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_figure_in_the_documents_comes_from_a_record(document):
    assert problems(document.read_text(encoding="utf-8"), documented()) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("It costs 9.99x <!-- claim:toy-cheap --> the optimum.", "It costs 1.05x <!-- claim:toy-cheap --> the optimum."),
        ("**9.9×** <!-- claim:toy-cheap -->", "**1.1×** <!-- claim:toy-cheap -->"),
        ("9 % <!-- claim:toy-cheap.excess --> more", "5 % <!-- claim:toy-cheap.excess --> more"),
        (
            "1.00 <!-- claim:toy-cheap.low --> to 1.00 <!-- claim:toy-cheap.high -->",
            "1.01 <!-- claim:toy-cheap.low --> to 1.09 <!-- claim:toy-cheap.high -->",
        ),
        ("over 3 runs <!-- claim:toy-cheap.n -->", "over 12 runs <!-- claim:toy-cheap.n -->"),
        ("$1 <!-- claim:toy-usd -->", "$41,234 <!-- claim:toy-usd -->"),
        ("12 % <!-- claim:toy-cheap.published -->", "12 % <!-- claim:toy-cheap.published -->"),
        ("| 2.000x <!-- claim:toy-cheap --> | 12 |", "| 1.053x <!-- claim:toy-cheap --> | 12 |"),
    ],
)
def test_update_rewrites_the_number_in_front_of_its_marker(before, after):
    assert update(before, TOY) == after
    assert problems(after, TOY) == []


@pytest.mark.parametrize(
    "text", ["It is 3x faster.", "saves 40 %", "40% less", "a 2.5× gain", "up to 3.96X", "in `1.2x`", "| 3.2 x |", "**7 %**"]
)
def test_a_figure_without_a_marker_is_a_problem(text):
    found = problems(f"# Title\n\n{text}\n", TOY)
    assert len(found) == 1
    assert found[0].startswith("line 3: ")
    assert "has no <!-- claim:ID -->" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "16×H100 machines",
        "policies x workloads x seeds",
        "3 × 4 tasks",
        "T/P 2.0 and V100",
        "```\n3x faster\n```",
        "~~~text\n40 %\n~~~\n",
        "version 1.2.3",
        "12 seeds, 9 zones",
    ],
)
def test_what_is_no_figure_needs_no_marker(text):
    assert problems(text, TOY) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1.06x <!-- claim:toy-cheap -->", "1.06 is not what the record of toy-cheap gives: 1.05x"),
        ("13 % <!-- claim:toy-cheap.published -->", "not in the published figure"),
        ("1.0x <!-- claim:toy-cheep -->", "no claim named"),
        ("1.0x <!-- claim:toy-cheap.median -->", "no field of claim"),
        ("1.0x <!-- claim:toy-untested -->", "no figure on record"),
        ("5 % <!-- claim:toy-cheap.saving --> cheaper", "below zero; reword"),
        ("cheap <!-- claim:toy-cheap -->", "no number in front"),
        ("2x <!-- claim:toy-untested -->, 1.05x <!-- claim:toy-cheap -->", "no figure on record"),
        ("2x. It is 1.05x <!-- claim:toy-cheap -->", "'2x' has no"),
    ],
)
def test_a_figure_its_record_does_not_give_is_a_problem(text, says):
    found = problems(text, TOY)
    assert len(found) == 1
    assert says in found[0]


def test_the_table_of_claims_is_filled_and_checked():
    before = "# Claims\n<!-- claims-table:toy -->\nold\n<!-- /claims-table -->\n"
    after = update(before, TOY)
    assert "| toy-cheap | within 10–12 %, up to 3.96x | 1.053 [1.010, 1.090], n = 12 | simulated | holds |" in after
    assert "| toy-untested | within 10–12 %, up to 3.96x |  | simulated | untested |" in after
    assert problems(after, TOY) == []
    assert update(after, TOY) == after
    assert "line 2: the table of claims of toy is not the one on record" in problems(before, TOY)
    with pytest.raises(UnknownName, match="study with claims"):
        update(before.replace("toy", "other"), TOY)


def test_code_stays_as_it_is():
    text = "```python\n9x <!-- claim:toy-cheap -->\n```\n9.99x <!-- claim:toy-cheap -->\n"
    assert update(text, TOY) == "```python\n9x <!-- claim:toy-cheap -->\n```\n1.05x <!-- claim:toy-cheap -->\n"


def test_update_of_an_unknown_claim_says_which_exist():
    with pytest.raises(InputError, match="toy-cheap"):
        update("1x <!-- claim:toy-cheep -->", TOY)
