from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from cloudchamber import study
from cloudchamber.core.errors import InputError
from cloudchamber.core.results import Table, number
from cloudchamber.core.svg import Scale, strip


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    results = study("spot", None, ["smoke"], 2)
    return results.report(tmp_path_factory.mktemp("report") / "spot.html").read_text()


class Balance(HTMLParser):
    VOID = {"meta", "br", "link", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_is_one_well_formed_file_that_loads_nothing_from_elsewhere(html):
    parser = Balance()
    parser.feed(html)
    assert parser.wrong == [] and parser.open == []
    assert not re.search(r'(src|href)="(?!#)', html) and "http" not in html and "@import" not in html


def test_says_everything_the_table_says_and_how_to_get_it(html):
    assert "optimum (exact)" in html and "OnDemandOnly" in html and "sees the future" in html
    assert html.count('class="strip"') == 10  # nine policies and the axis
    assert "(generated)" in html and "Python" in html


def test_shows_a_timeline_of_every_policy_and_the_bills(html):
    assert html.count("<g transform") == 10 and "time lines of optimum, " in html
    assert "preemption" in html and "slack" in html and "USD against hours since the start" in html


def test_names_are_escaped(tmp_path):
    class Evil:
        def reset(self, spec, rng):
            raise RuntimeError("<script>alert(1)</script>")

        def decide(self, obs):
            pass

    text = study("spot", [Evil, "OnDemandOnly"], ["smoke"], 1).report(tmp_path / "r.html").read_text()
    assert "<script" not in text and "void 1/1" in text


def test_unwritable_place_is_a_clear_error_and_keeps_the_old_file(tmp_path):
    results = study("spot", ["OnDemandOnly"], ["smoke"], 1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="give another --report"):
        results.report(tmp_path / "file" / "r.html")


def test_scales_map_ends_to_ends():
    scale = Scale(1, 10, 0, 100, is_log=True)
    assert (scale(1), scale(10)) == (0, 100) and scale.ticks()[0] == 1
    assert Scale(0, 80, 0, 1).ticks(8) == [0, 10, 20, 30, 40, 50, 60, 70, 80]


def test_strip_has_a_dot_per_seed_and_one_median():
    text = strip([1.0, 1.2, 5.0], Scale(1, 5, 0, 100, is_log=True), "x")
    assert text.count("<circle") == 3 and text.count('class="median"') == 1


def test_numbers_have_four_significant_digits():
    assert [number(x) for x in (None, 0, 1234.6, 12.341, 0.00123)] == ["", "0", "1,235", "12.34", "0.001230"]


def test_table_aligns_numbers_right():
    lines = str(Table(("name", "n"), (("a", "1.5"), ("bb", "10.0")))).splitlines()
    assert lines[2].endswith(" 1.5") and lines[3].endswith("10.0")
    assert Table(("a",), (("1",),)).to_markdown() == "| a |\n| --- |\n| 1 |"
