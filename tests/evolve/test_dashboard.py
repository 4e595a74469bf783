"""The page of a run: who may see it, what hostile candidates can do in it (nothing), and whether it is up to date."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.evolve import Budget, Search, Settings
from cloudchamber.evolve.dashboard import Guard, View, app_of, diff, is_running, serve_dashboard, visible

from .browsing import CHROMIUM, Browser

pytest.importorskip("sse_starlette")
from starlette.testclient import TestClient

TOKEN = "a-token-of-the-test"
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\x1b[31m\u202ebidi"


def begun(path, evaluations=40):
    return Search(
        "placement", Settings(start="PrismGreedy", workloads=("smoke",), trials=(2, 1, 2), seed=5), store=path, budget=Budget(evaluations)
    )


def told(search, source, note=""):
    return search.tell(search.ask()[0].id, source, note=note)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A short run with hostile text in every place a candidate can write to."""
    path = tmp_path_factory.mktemp("dashboard") / "run.db"
    with begun(path) as search:
        source = search.best().source
        told(search, f"{source}\nEVIL = {EVIL!r}\n# {EVIL}\n", EVIL)
        told(search, f"{source}\nraise RuntimeError({EVIL!r})\n", EVIL)
        told(search, EVIL, EVIL)
        search.store.event(EVIL, EVIL)
        figures = {"gain": 0.1, "low": 0.05, "high": 0.15, "objective": 1.0, "baseline_objective": 2.0, "bound": float("nan")}
        search.store["verdict"] = [{"candidate": 2, "baseline": EVIL, "trials": 6, "void": "", **figures}]
    return path


@pytest.fixture
def client(store):
    return TestClient(app_of(store, "127.0.0.1", TOKEN), base_url="http://127.0.0.1:1234")


@pytest.mark.parametrize("place", ["/", "/state", "/candidate/1", "/stream", "/none", "/?token=wrong", "/?token=", "/?token=%ff%00"])
def test_nobody_gets_in_without_the_token(client, place):
    answer = client.get(place)
    assert answer.status_code == 401 and "set-cookie" not in answer.headers and "placement" not in answer.text
    assert client.get(place, headers={"cookie": "chamber_0=x; chamber=" + TOKEN}).status_code == 401


def test_the_token_becomes_a_cookie(client):
    first = client.get("/", params={"token": TOKEN})
    assert first.status_code == 200 and "HttpOnly" in first.headers["set-cookie"] and "SameSite=Strict" in first.headers["set-cookie"]
    assert TOKEN not in first.text
    assert client.get("/state").status_code == 200
    assert client.get("/candidate/2").json()["parent"] == 1 and client.get("/candidate/1").json()["parent"] is None
    assert client.get("/candidate/999").status_code == client.get(f"/candidate/{1 << 70}").status_code == 404
    for method in ("post", "put", "delete"):
        assert getattr(client, method)("/state").status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:1234", "10.0.0.1", "", "[::2]"])
def test_a_name_that_was_bound_to_the_loopback_is_not_served(client, host):
    assert client.get("/", params={"token": TOKEN}, headers={"host": host}).status_code in (400, 421)


def test_names_that_are_served():
    loopback, everywhere = Guard("127.0.0.1", TOKEN), Guard("0.0.0.0", TOKEN)
    for host in ("127.0.0.1:8", "localhost:8", "LOCALHOST", "[::1]:8"):
        assert loopback.allows_host(host)
    assert everywhere.allows_host("192.168.1.7:80") and not everywhere.allows_host("evil.example:80")
    assert not loopback.allows_host("192.168.1.7:80")


@pytest.mark.parametrize("place", ["/", "/state", "/none"])
def test_every_answer_is_closed_to_other_pages(client, place):
    for answer in (client.get(place, headers={"cookie": ""}), client.get(place, params={"token": TOKEN})):
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'") and "http" not in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"] and headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_the_page_is_whole_and_holds_no_data(client):
    page = client.get("/", params={"token": TOKEN}).text
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page and "{{" not in page
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page and "document.write" not in page
    assert "owned" not in page and "PrismGreedy" not in page


def test_nothing_hidden_is_shown_and_nothing_is_written(store):
    before = store.read_bytes()
    view = View(store)
    text = json.dumps([view.changes(0, 0), *(view.candidate(number) for number in range(1, 5))], ensure_ascii=False)
    with Search("placement", store=store) as search:
        hidden = [point.seed for point in (*search.splits.validation, *search.splits.held_out)]
    assert not [seed for seed in hidden if str(seed) in text]
    assert not re.search(r"(?<!\\)\\u001b", text) and "\u202e" not in text and "\\\\x1b" in text
    assert store.read_bytes()[:4096] == before[:4096]


def test_only_what_changed_is_sent_again(tmp_path):
    with begun(tmp_path / "run.db") as search:
        view = View(tmp_path / "run.db")
        first = view.changes(0, 0)
        assert view.changes(first["settled"], first["event"])["candidates"] == []
        verdict = told(search, search.best().source + "\nX = 1\n")
        news = view.changes(first["settled"], first["event"])
        assert [each["number"] for each in news["candidates"]] == [verdict.candidate] and news["events"]
        assert news["run"]["is_running"] and is_running(tmp_path / "run.db")
    assert not is_running(tmp_path / "run.db")


def test_differences():
    rows = diff("a\nb\nc\n", "a\nB\x1b\nc\n")
    assert [(row[0], row[3]) for row in rows] == [("@", "lines 1 to 3"), (" ", "a"), ("-", "b"), ("+", "B\\x1b"), (" ", "c")]
    assert diff("x\n" * 9000, "y\n" * 9000)[0][3].endswith("too long to compare")
    assert visible("é 漢 \u200b\u2066") == "é 漢 \\u200b\\u2066"


def test_a_file_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no run at"):
        serve_dashboard(tmp_path / "none.db")
    (tmp_path / "text.db").write_text("not a database, though long enough to be looked at " * 40)
    with pytest.raises(InputError, match="is not the file of a run"):
        serve_dashboard(tmp_path / "text.db")


def served(path):
    found = []
    threading.Thread(target=serve_dashboard, args=(path,), kwargs={"token": TOKEN, "opened": found.append}, daemon=True).start()
    end = time.monotonic() + 20
    while not found and time.monotonic() < end:
        time.sleep(0.02)
    return found[0]


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_hostile_text_is_text_and_the_page_fits(store, tmp_path, width):
    with Browser(tmp_path / "profile", width) as browser:
        browser.goto(served(store))
        browser.wait("Number(document.body.dataset.candidates) > 0")
        for number, tab in ((2, "Source"), (3, "Feedback"), (4, "Feedback")):
            browser.run(f"choose({number})")
            browser.wait(f"document.querySelector('#inspector h2').textContent === 'Candidate {number}'")
            browser.run(f"[...document.querySelectorAll('#inspector [role=tab]')].find((each) => each.textContent === '{tab}').click()")
            browser.wait("document.querySelector('#inspector .code, #inspector .words') !== null")
            assert "onerror" in browser.run("document.getElementById('inspector').textContent")
        assert "owned" not in browser.run("document.title") and browser.run("document.querySelectorAll('img, script').length") == 1
        shown = browser.run("document.body.innerText")
        assert "<script>document.title='owned'</script>" in shown and "\\x1b[31m" in shown and "\u202e" not in shown
        assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert "token" not in browser.run("location.href") and not browser.problems()
        assert len(browser.hosts()) == 1


@pytest.mark.browser
@needs_browser
def test_news_arrive_while_the_page_is_open(tmp_path):
    with begun(tmp_path / "run.db") as search, Browser(tmp_path / "profile") as browser:
        browser.goto(served(tmp_path / "run.db"))
        browser.wait("Number(document.body.dataset.candidates) > 0")
        count = int(browser.run("document.body.dataset.candidates"))
        assert browser.wait("document.getElementById('pill').textContent === 'running'")
        verdict = told(search, search.best().source + "\nNEWS = 1\n", "fresh from the press")
        browser.wait(f"Number(document.body.dataset.candidates) === {count + 1}")
        browser.run(f"choose({verdict.candidate})")
        browser.wait("document.getElementById('inspector').textContent.includes('fresh from the press')")
        assert not browser.problems()
