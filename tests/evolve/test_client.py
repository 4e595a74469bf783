from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.evolve import client as clients
from cloudchamber.evolve.client import client_of
from cloudchamber.evolve.model import BudgetSpent, ProposerUnavailable, Spend

from .endpoint import CANARY, Endpoint, answer, half, hang_up, silence, trickle, trickle_headers

ASK = [{"role": "user", "content": "Hello"}]
WORST = 5 + 16 + 100


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(clients, "WAIT_S", 0.01)
    monkeypatch.setattr(clients, "_taken", {})


@dataclass
class Purse:
    limit: int = 10**9
    book: dict[int, Spend] = field(default_factory=dict)

    @property
    def spent(self):
        return sum(each.tokens for each in self.book.values())

    def reserve(self, spend):
        if self.spent + spend.tokens > self.limit:
            raise BudgetSpent("spent")
        self.book[len(self.book)] = spend
        return len(self.book) - 1

    def settle(self, identifier, spend):
        self.book[identifier] = spend


def made(url, **settings):
    settings = {"base_url": url, "model": "m", "max_tokens": 100, "timeout_s": 5.0} | settings
    return client_of(settings)


def test_an_answer_costs_what_the_endpoint_bills():
    with Endpoint(answer("Hi", read=1000, written=10)) as there:
        purse = Purse()
        reply = made(there.url, usd_per_mtok_in=2, usd_per_mtok_out=10).chat(ASK, purse)
    assert reply.text == "Hi"
    assert reply.spend == Spend(1010, (1000 * 2 + 10 * 10) / 1e6) == purse.book[0]
    assert there.requests[0] == {"model": "m", "messages": ASK, "max_tokens": 100, "temperature": 0.8}


def test_an_answer_without_a_bill_costs_its_reservation():
    step = answer("Hi")
    del step["usage"]
    with Endpoint(step) as there:
        assert made(there.url).chat(ASK).spend.tokens == WORST


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_tries_again_after_a_passing_fault_which_costs_nothing(status):
    with Endpoint(status, status, answer("Hi")) as there:
        reply = made(there.url).chat(ASK)
    assert (reply.text, reply.spend.tokens, len(there.requests)) == ("Hi", 150, 3)


def test_waits_as_long_as_it_is_asked_to():
    with Endpoint((429, {"Retry-After": "0.4"}), answer("Hi")) as there:
        begin = time.monotonic()
        assert made(there.url).chat(ASK).text == "Hi"
        assert time.monotonic() - begin >= 0.4


def test_does_not_wait_for_ever_nor_ask_before_it_may():
    with Endpoint((429, {"Retry-After": "3600"}), answer("Hi")) as there:
        client = made(there.url)
        with pytest.raises(ProposerUnavailable, match="left alone for 3600 s"):
            client.chat(ASK)
        with pytest.raises(ProposerUnavailable, match="left alone"):
            client.chat(ASK)
        assert len(there.requests) == 1


@pytest.mark.parametrize("text", ["", "nonsense", "-5", "nan", "inf", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct"])
def test_a_strange_retry_after_means_no_wait(text):
    assert clients._retry_after_s(text) == 0.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_lasting_fault_is_not_tried_again(status):
    with Endpoint(status) as there, pytest.raises(ProposerUnavailable, match=f"1 tries: status {status}") as caught:
        made(there.url).chat(ASK)
    assert caught.value.spend == Spend()


GARBAGE = {
    "no JSON": b"<html>Oops</html>",
    "no bytes": b"",
    "deep": b"[" * 100_000,
    "a list": [],
    "no choices": {"choices": []},
    "null": {"choices": None},
    "no message": {"choices": [{"text": "x"}]},
    "empty content": answer(""),
    "blank content": answer(" \n"),
    "null content": answer(None),
    "a number": answer(5),
    "10 MB": b"x" * (10 << 20),
    "odd usage": {"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": "many"}},
}


@pytest.mark.parametrize("step", [*GARBAGE.values(), hang_up, half], ids=[*GARBAGE, "hang up", "half"])
def test_a_worthless_answer_is_tried_again_then_given_up_with_its_cost(step):
    purse = Purse()
    with Endpoint(forever=step) as there, pytest.raises(ProposerUnavailable) as caught:
        made(there.url).chat(ASK, purse)
    assert len(there.requests) == clients.TRIES
    assert caught.value.spend.tokens == purse.spent in (4 * WORST, 4 * 150)


def test_goes_on_after_garbage():
    with Endpoint(b"garbage", half, answer("Hi")) as there:
        assert made(there.url).chat(ASK).text == "Hi"


@pytest.mark.parametrize("step", [trickle(3), trickle_headers(3), silence(3)], ids=["trickle", "headers", "silence"])
def test_a_slow_answer_ends_at_the_deadline(step, monkeypatch):
    monkeypatch.setattr(clients, "TRIES", 1)
    with Endpoint(forever=step) as there:
        begin = time.monotonic()
        with pytest.raises(ProposerUnavailable, match="no whole answer within 0.3 s") as caught:
            made(there.url, timeout_s=0.3).chat(ASK)
        assert time.monotonic() - begin < 2.5
    assert caught.value.spend.tokens == WORST, "it may have been billed"


def test_a_dead_endpoint_costs_nothing():
    with Endpoint() as there:
        url = there.url
    with pytest.raises(ProposerUnavailable, match="cannot connect") as caught:
        made(url).chat(ASK)
    assert caught.value.spend == Spend()


def test_every_try_is_paid_for_before_it_is_made():
    purse = Purse(limit=2 * WORST)
    with Endpoint(forever=b"garbage") as there:
        with pytest.raises(BudgetSpent):
            made(there.url).chat(ASK, purse)
        assert len(there.requests) == 2
    assert purse.spent == 2 * WORST


def test_works_inside_a_running_loop():
    async def inside(url):
        return made(url).chat(ASK).text

    with Endpoint(answer("Hi")) as there:
        assert asyncio.run(inside(there.url)) == "Hi"


def test_a_text_no_file_could_hold_is_mended():
    with Endpoint(b'{"choices": [{"message": {"content": "a\\ud800b\\u0000c"}}]}') as there:
        assert made(there.url).chat(ASK).text == "a?bc"


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({}, "give llm base_url"),
            ({"base_url": "http://x/v1"}, "give llm model"),
            ({"base_url": "x/v1", "model": "m"}, "http"),
            ({"base_url": "https://u:p@x/v1", "model": "m"}, "no user, password"),
            ({"base_url": "https://x/v1?key=1", "model": "m"}, "query"),
            ({"base_url": "http://x/v1", "model": "m", "api_key": "s"}, "A key is never a setting"),
            ({"base_url": "http://x/v1", "model": "m", "speed": "s"}, "no setting 'speed'; allowed: base_url"),
            ({"base_url": "http://x/v1", "model": "m", "max_tokens": 0}, "whole number of at least 1"),
            ({"base_url": "http://x/v1", "model": "m", "max_tokens": 1.5}, "whole number"),
            ({"base_url": "http://x/v1", "model": "m", "timeout_s": 0}, "above 0"),
            ({"base_url": "http://x/v1", "model": "m", "temperature": "nan"}, "finite number"),
            ({"base_url": "http://x/v1", "model": "m", "usd_per_mtok_in": -1}, "at least 0"),
            ({"base_url": "http://x/v1", "model": "m", "key_env": "NOT_SET_ANYWHERE"}, r"no key in \$NOT_SET_ANYWHERE"),
        ],
    )
    def test_wrong_ones_are_refused_with_what_to_give(self, settings, words):
        with pytest.raises(InputError, match=words):
            client_of(settings)

    def test_numbers_may_be_text_as_the_command_line_gives_them(self):
        client = client_of({"base_url": "http://x/v1/", "model": "m", "max_tokens": "64", "timeout_s": "2"})
        assert (client.base_url, client.max_tokens, client.timeout_s) == ("http://x/v1", 64, 2.0)

    def test_a_key_in_place_of_its_name_is_not_repeated(self):
        with pytest.raises(InputError) as caught:
            client_of({"base_url": "http://x/v1", "model": "m", "key_env": CANARY})
        assert CANARY not in str(caught.value)


class TestKey:
    @pytest.fixture
    def key(self, monkeypatch):
        monkeypatch.setenv("MY_KEY", CANARY)
        return {"base_url": "http://127.0.0.1:9/v1", "model": "m", "key_env": "MY_KEY"}

    def test_is_sent_and_taken_out_of_the_environment(self, key):
        with Endpoint(answer("Hi"), answer("Hi")) as there:
            client_of(key | {"base_url": there.url}).chat(ASK)
            assert "MY_KEY" not in os.environ
            client_of(key | {"base_url": there.url}).chat(ASK)  # a second one in this process finds it all the same
        assert there.keys == [f"Bearer {CANARY}"] * 2

    def test_an_endpoint_without_key_gets_none(self):
        with Endpoint(answer("Hi")) as there:
            made(there.url).chat(ASK)
        assert there.keys == [None]

    def test_is_in_no_repr_pickle_or_copy_of_the_client(self, key):
        client = client_of(key)
        for shown in (repr(client), str(client), f"{client.key}", repr(vars(client)), pickle.dumps(client).decode("latin1")):
            assert CANARY not in shown
        assert not pickle.loads(pickle.dumps(client)).key
        assert not copy.deepcopy(client).key

    def test_is_in_no_memory_that_proc_shows(self):
        script = (
            "import os\n"
            "from cloudchamber.evolve.client import client_of\n"
            "client_of({'base_url': 'http://x/v1', 'model': 'm', 'key_env': 'MY_KEY'})\n"
            "print(open('/proc/self/environ').read().replace(chr(0), ' '), dict(os.environ))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"MY_KEY": CANARY}, capture_output=True, text=True, check=True
        )
        assert CANARY not in done.stdout and "PATH" in done.stdout

    def test_an_endpoint_that_repeats_it_cannot_make_us_store_it(self, key):
        def echo(handler):
            return answer(f"```python\nkey = {handler.headers['Authorization'].split()[1]!r}\n```")

        with Endpoint(echo) as there:
            assert client_of(key | {"base_url": there.url}).chat(ASK).text == "```python\nkey = '[key]'\n```"

    def test_is_in_no_error_and_no_log(self, key, caplog):
        def refuse(handler):
            handler.send_response(401, "No")
            handler.end_headers()
            handler.wfile.write(f"Incorrect API key: {CANARY} \x1b[31m".encode())

        caplog.set_level(logging.DEBUG)
        with Endpoint(refuse, hang_up, hang_up, hang_up, hang_up) as there:
            client = client_of(key | {"base_url": there.url})
            for _ in range(2):
                with pytest.raises(ProposerUnavailable) as caught:
                    client.chat(ASK)
                error: BaseException | None = caught.value
                while error is not None:
                    assert CANARY not in repr(error) + str(error) + repr(vars(error)) and "\x1b" not in str(error)
                    error = error.__context__
        assert CANARY not in caplog.text

    def test_settings_that_hold_it_are_refused_without_saying_it(self, key):
        with pytest.raises(InputError, match="holds the key itself") as caught:
            client_of(key | {"model": f"m-{CANARY}"})
        assert CANARY not in str(caught.value)
