"""A client of any OpenAI-compatible endpoint: one question at a time, paid for before it is asked, over by a deadline.

The key is read from the environment once, taken out of it (so that no worker, jail or subprocess inherits it), and held by the
client alone: nothing that prints, pickles, logs or stores a client shows it, and what an endpoint sends back is cleaned of it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import json
import math
import os
import re
import ssl
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from cloudchamber.core.errors import InputError, MissingExtra

from .model import ModelUnavailable, ProposerUnavailable, Spend

TRIES = 4
WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
MAX_REPLY = 4 << 20  # bytes
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})  # worth another try
SETTINGS = {
    "base_url": "the endpoint, as https://api.example.com/v1",
    "model": "the model's name there",
    "key_env": "name of the environment variable that holds the key (OPENAI_API_KEY)",
    "usd_per_mtok_in": "dollars for a million tokens read (0)",
    "usd_per_mtok_out": "dollars for a million tokens written (0)",
    "max_tokens": "most tokens of one answer (8192)",
    "timeout_s": "seconds one try may take (180)",
    "temperature": "of sampling (0.8)",
}
_taken: dict[str, Secret] = {}  # keys already taken out of the environment, for a second client in this process


class Secret:
    """Text that no repr, pickle or copy of what holds it shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret()"

    def __reduce__(self) -> tuple[type[Secret], tuple[()]]:
        return Secret, ()

    def header(self) -> dict[str, str]:
        """What is sent with a request."""
        return {"Authorization": f"Bearer {self._text}"} if self._text else {}

    def scrub(self, text: str) -> str:
        """The text with every form of the secret replaced."""
        for form in self._forms():
            text = text.replace(form, "[key]")
        return text

    def is_in(self, text: str) -> bool:
        """Whether the text holds it."""
        return any(form in text for form in self._forms())

    def _forms(self) -> list[str]:
        if not self._text:
            return []
        return [self._text, base64.b64encode(self._text.encode()).decode().rstrip("="), quote(self._text, safe=""), self._text[::-1]]


class Purse(Protocol):
    """What a client pays from."""

    def reserve(self, spend: Spend) -> int:
        """Set a cost aside before it arises; raises if it is more than is left."""

    def settle(self, identifier: int, spend: Spend) -> None:
        """Replace what was set aside by what was really spent."""


class Unlimited:
    """A purse without bottom, which keeps no books: for a client that is used alone."""

    def reserve(self, spend: Spend) -> int:
        """See :class:`Purse`."""
        return 0

    def settle(self, identifier: int, spend: Spend) -> None:
        """See :class:`Purse`."""


@dataclass(frozen=True)
class Reply:
    """What a model wrote, and what it cost, failed tries included."""

    text: str
    spend: Spend


@dataclass(frozen=True)
class _Failure:
    """Why one try gave no answer, what it may have cost, and whether and when another makes sense."""

    why: str
    cost: Spend = field(default_factory=Spend)
    is_passing: bool = True
    wait_s: float = 0.0


@dataclass
class Client:
    """Asks one model of one endpoint.

    Parameters
    ----------
    base_url, model : str
    key : Secret
    usd_per_mtok_in, usd_per_mtok_out : float
    max_tokens : int
    timeout_s : float
        Of one try, from connecting to the last byte, however slowly it comes.
    temperature : float
    """

    base_url: str
    model: str
    key: Secret = field(default_factory=Secret, repr=False)
    usd_per_mtok_in: float = 0.0
    usd_per_mtok_out: float = 0.0
    max_tokens: int = 8192
    timeout_s: float = 180.0
    temperature: float = 0.8
    _closed_until_s: float = field(default=0.0, repr=False)
    _line: _Line | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_line": None}

    def chat(self, messages: Sequence[Mapping[str, str]], purse: Purse | None = None) -> Reply:
        """Return the model's answer.

        Every try is reserved at its worst price (each byte of the question a token, and ``max_tokens`` written) before it is made. A try
        that ended without a bill after the question had been sent keeps that price, so that spend is never under-counted.

        Raises
        ------
        ModelUnavailable
            If no try gave an answer; it carries what was spent.
        BudgetSpent
            If the purse says so.
        """
        body = self._body(messages)
        worst = self._cost(sum(len(each["content"].encode("utf-8", "replace")) + 16 for each in messages), self.max_tokens)
        purse, spent, failure = purse or Unlimited(), Spend(), _Failure("")
        for attempt in range(TRIES):
            if attempt or self._closed_until_s > time.monotonic():
                wait_s = max(failure.wait_s, WAIT_S * 2 ** (attempt - 1) if attempt else 0.0, self._closed_until_s - time.monotonic())
                if wait_s > LONGEST_WAIT_S:
                    self._closed_until_s = max(self._closed_until_s, time.monotonic() + wait_s)
                    raise ModelUnavailable(
                        f"{self._place} asks to be left alone for {wait_s:.0f} s ({failure.why or 'as it said before'}).", spent
                    )
                time.sleep(wait_s)
            try:
                ticket = purse.reserve(worst)
            except ProposerUnavailable as error:
                error.spend += spent
                raise
            try:
                found = self._try(body, worst)
            except BaseException:
                purse.settle(ticket, worst)  # it may have been sent
                raise
            cost = found.spend if isinstance(found, Reply) else found.cost
            purse.settle(ticket, cost)
            spent += cost
            if isinstance(found, Reply):
                return Reply(found.text, spent)
            failure = found
            if not failure.is_passing:
                break
        raise ModelUnavailable(f"{self._place} gave no answer in {attempt + 1} tries: {failure.why}.", spent)

    @property
    def _place(self) -> str:
        return f"model {self.model!r} at {self.base_url}"

    def _body(self, messages: Sequence[Mapping[str, str]]) -> bytes:
        asked = {"model": self.model, "messages": list(messages), "max_tokens": self.max_tokens, "temperature": self.temperature}
        return json.dumps(asked).encode()

    def _cost(self, read: int, written: int) -> Spend:
        return Spend(read + written, (read * self.usd_per_mtok_in + written * self.usd_per_mtok_out) / 1e6)

    def _try(self, body: bytes, worst: Spend) -> Reply | _Failure:
        """One request, in an event loop of its own thread: the deadline holds whatever the endpoint does."""
        line = self._line = self._line if self._line is not None and self._line.is_ours else _Line(self.base_url, self.timeout_s)
        found: tuple[int, Mapping[str, str], bytes] | _Failure = line.run(self._post(line, body, worst))
        return found if isinstance(found, _Failure) else self._read(*found, worst)

    async def _post(self, line: _Line, body: bytes, worst: Spend) -> tuple[int, Mapping[str, str], bytes] | _Failure:
        httpx = _httpx()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"} | self.key.header()
        data = bytearray()
        try:
            async with (
                asyncio.timeout(self.timeout_s),
                line.http.stream("POST", f"{self.base_url}/chat/completions", content=body, headers=headers) as reply,
            ):
                async for chunk in reply.aiter_raw():
                    data += chunk
                    if len(data) > MAX_REPLY:
                        return _Failure(f"its answer was longer than {MAX_REPLY} bytes", worst)
                return reply.status_code, dict(reply.headers), bytes(data)
        except TimeoutError:
            return _Failure(f"no whole answer within {self.timeout_s:g} s", worst)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return _Failure(f"cannot connect ({self._clean(str(error))})")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return _Failure(f"the connection failed ({type(error).__name__}: {self._clean(str(error))})", worst)

    def _read(self, status: int, headers: Mapping[str, str], data: bytes, worst: Spend) -> Reply | _Failure:
        if status != 200:
            why = f"status {status}: {self._clean(data[:2000].decode(errors='replace'))}"
            return _Failure(why, is_passing=status in PASSING, wait_s=_retry_after_s(headers.get("retry-after", "")))
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            return _Failure("its answer is no JSON", worst)
        cost = self._billed(answer, worst)
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            return _Failure("its answer holds no choices[0].message.content", cost)
        if not isinstance(text, str) or not text.strip():
            return _Failure("its answer is empty", cost)
        return Reply(self.key.scrub(text.encode("utf-8", "replace").decode().replace("\0", "")), cost)

    def _billed(self, answer: Any, worst: Spend) -> Spend:
        """What the endpoint says was used; the reservation if it does not say."""
        usage = answer.get("usage") if isinstance(answer, dict) else None
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else [None]
        if all(type(count) is int and 0 <= count < 1 << 40 for count in counts):
            return self._cost(*counts)
        return worst

    def _clean(self, text: str) -> str:
        """What an endpoint says, as it may be logged: no key, no control characters, cut."""
        return re.sub(r"[^\x20-\x7e]+", " ", self.key.scrub(text))[:200].strip()


class _Line:
    """A connection to an endpoint, kept for the next question if that comes soon: opening one costs more than many a question."""

    def __init__(self, base_url: str, timeout_s: float) -> None:
        httpx = _httpx()
        self._pid = os.getpid()
        self._loop = _loop(self._pid)
        self.http = httpx.AsyncClient(
            timeout=timeout_s,
            trust_env=urlsplit(base_url).hostname not in ("127.0.0.1", "::1", "localhost"),
            verify=ssl.create_default_context() if base_url.startswith("https") else False,
            limits=httpx.Limits(keepalive_expiry=1.0),  # well below what any server waits before it hangs up
        )

    @property
    def is_ours(self) -> bool:
        """Whether it was opened by this process: a thread does not survive a fork."""
        return self._pid == os.getpid()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What the work gives; it is cancelled when the waiting is."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def __del__(self) -> None:
        if hasattr(self, "http") and self.is_ours:
            asyncio.run_coroutine_threadsafe(self.http.aclose(), self._loop)


@lru_cache(maxsize=1)
def _loop(pid: int) -> asyncio.AbstractEventLoop:
    """The event loop of a process, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="llm", daemon=True).start()
    return loop


def client_of(llm: Mapping[str, Any]) -> Client:
    """Make the client that a run's settings describe, taking its key out of the environment.

    Parameters
    ----------
    llm : mapping
        ``base_url`` and ``model``; optionally ``key_env``, ``usd_per_mtok_in``, ``usd_per_mtok_out``, ``max_tokens``, ``timeout_s``,
        ``temperature``. Never a key.

    Raises
    ------
    InputError
        If a setting is missing, unknown or no such value; no message repeats a value that could be a key.

    Examples
    --------
    >>> client_of({"base_url": "http://127.0.0.1:8000/v1", "model": "small"}).model
    'small'
    """
    for name in llm:
        if name not in SETTINGS:
            secret = " A key is never a setting: put it in an environment variable and name that as key_env." * ("key" in str(name).lower())
            raise InputError(f"a language model has no setting {str(name)[:40]!r}; allowed: {', '.join(SETTINGS)}.{secret}")
    for name in ("base_url", "model"):
        if not isinstance(llm.get(name), str) or not llm[name].strip():
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"these proposers ask a language model; give llm {name} ({option} on the command line): {SETTINGS[name]}.")
    key = _key_of(llm)
    if any(key.is_in(str(value)) for value in llm.values()):
        raise InputError("a setting of the language model holds the key itself; settings are stored. Leave it in the environment only.")
    numbers = {
        name: _number(llm, name, low, is_strict)
        for name, low, is_strict in (
            ("usd_per_mtok_in", 0, False),
            ("usd_per_mtok_out", 0, False),
            ("timeout_s", 0, True),
            ("temperature", 0, False),
            ("max_tokens", 1, False),
        )
        if llm.get(name) is not None
    }
    if "max_tokens" in numbers:
        numbers["max_tokens"] = int(numbers["max_tokens"])
    _httpx()
    return Client(_url_of(llm["base_url"].strip()), llm["model"].strip(), key, **numbers)  # type: ignore[arg-type]


def _url_of(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"base_url must be {SETTINGS['base_url']}; it has no http(s):// and host.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError("base_url must hold no user, password, query or fragment: settings are stored. Put a key in the environment.")
    return base_url.rstrip("/").removesuffix("/chat/completions")


def _number(llm: Mapping[str, Any], name: str, low: float, is_strict: bool) -> float:
    try:
        value = float(llm[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < low or (is_strict and value == low) or (name == "max_tokens" and value != int(value)):
        kind = "a whole number" if name == "max_tokens" else "a finite number"
        raise InputError(f"the language model's {name} must be {kind} {'above' if is_strict else 'of at least'} {low}, got {llm[name]!r}.")
    return value


def _key_of(llm: Mapping[str, Any]) -> Secret:
    name = llm.get("key_env") or "OPENAI_API_KEY"
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
        raise InputError("key_env must be the name of an environment variable, such as OPENAI_API_KEY; not the key itself.")
    text = os.environ.get(name, "").strip()
    if text:
        if not text.isascii() or not text.isprintable():
            raise InputError(f"the key in ${name} holds characters that no key has; set it again.")
        _taken[name] = Secret(text)
        _erase(name)
    elif llm.get("key_env") and name not in _taken:
        raise InputError(f"the environment has no key in ${name}; set it, or leave out key_env if the endpoint needs none.")
    return _taken.get(name, Secret())


def _erase(name: str) -> None:
    """Take a variable out of the environment, and out of the memory that /proc/self/environ shows."""
    with contextlib.suppress(OSError, AttributeError):  # not every platform lets us
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_void_p
        where = libc.getenv(name.encode())
        if where:
            ctypes.memset(where, 0, len(ctypes.string_at(where)))
    os.environ.pop(name, None)


def _retry_after_s(text: str) -> float:
    """Seconds that a Retry-After header asks for: a number or a date."""
    try:
        return max(0.0, float(text)) if math.isfinite(float(text)) else 0.0
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise MissingExtra("asking a language model needs httpx", "evolve") from None
    return httpx
