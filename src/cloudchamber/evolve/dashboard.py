"""A run in a browser: how far it is from the bound, where each candidate comes from, what went wrong, what it cost. It only reads.

The page is served on the loopback with a random token, and everything a candidate wrote reaches it as JSON and is shown as text.
"""

from __future__ import annotations

import asyncio
import difflib
import hmac
import ipaddress
import json
import math
import re
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudchamber.core.errors import InputError, MissingExtra

from .model import Scored
from .store import Store, settings_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

POLL_S = 0.5
EVENTS = 200  # lines of the log on the page
DIFF_LINES = 3000
_HIDDEN = re.compile(r"[^\x20-\x7e\n\t\u00a0-\u00ac\u00ae-\u200a\u2010-\u2027\u2030-\u205f\u2070-\ufdff]")


def serve_dashboard(
    path: str | Path, host: str = "127.0.0.1", port: int = 0, token: str | None = None, opened: Callable[[str], None] | None = None
) -> None:
    """Serve the page of a run until interrupted.

    Parameters
    ----------
    path : path-like
        The run's store; it is opened for reading only.
    host : str
        Address to listen on; anything but the loopback shows the candidates' sources to your network.
    port : int
        0 picks a free one.
    token : str, optional
        Needed on every request; random unless given.
    opened : callable, optional
        Called with the URL, token included, once the page is served.

    Raises
    ------
    InputError
        If there is no run at ``path``, or the address cannot be listened on.
    MissingExtra
        If starlette, sse-starlette or uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("the dashboard needs starlette, sse-starlette and uvicorn", "evolve") from None
    token = token or secrets.token_urlsafe(24)
    app = app_of(path, host, token)
    listener = _listener(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}/?token={token}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=1))
    if opened is not None:
        threading.Thread(target=_when_started, args=(server, opened, url), daemon=True).start()
    server.run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}; give another --port, 0 for any that is free.") from None
    return listener


def _when_started(server: Any, opened: Callable[[str], None], url: str) -> None:
    while not server.started and not server.should_exit:
        time.sleep(0.02)
    if server.started:
        opened(url)


def app_of(path: str | Path, host: str, token: str) -> Starlette:
    """The web application behind :func:`serve_dashboard`."""
    try:
        import sse_starlette
        from starlette.applications import Starlette
        from starlette.responses import Response
        from starlette.routing import Route
    except ImportError:
        raise MissingExtra("the dashboard needs starlette, sse-starlette and uvicorn", "evolve") from None
    view = View(path)
    guard = Guard(host, token)

    def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        response = Response(_page(nonce), media_type="text/html")
        response.headers["content-security-policy"] = _policy(nonce)
        return response

    def state(request: Request) -> Response:
        return _json(view.changes(0, 0))

    def candidate(request: Request) -> Response:
        found = view.candidate(request.path_params["number"])
        return _json(found) if found is not None else _json({"error": "there is no such candidate"}, 404)

    def stream(request: Request) -> Response:
        last = request.headers.get("last-event-id", "") or request.query_params.get("after", "")
        return sse_starlette.EventSourceResponse(_stream(view, last), ping=15)

    routes = [Route("/", page), Route("/state", state), Route("/candidate/{number:int}", candidate), Route("/stream", stream)]
    app = Starlette(routes=routes, exception_handlers={InputError: _refused})
    app.add_middleware(guard.middleware)
    return app


def _refused(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 503)


async def _stream(view: View, last: str) -> AsyncIterator[dict[str, str]]:
    """What changed, whenever something did."""
    settled, event = (int(part) if part.isdigit() and len(part) < 16 else 0 for part in f"{last}.".split(".")[:2])
    shown = ""
    while True:
        news = await asyncio.to_thread(view.changes, settled, event)
        settled, event = news["settled"], news["event"]
        text = json.dumps(news)
        mark = json.dumps({key: value for key, value in news.items() if key != "now_s"})
        if mark != shown:
            shown = mark
            yield {"data": text, "id": f"{settled}.{event}"}
        await asyncio.sleep(POLL_S)


class Guard:
    """Lets in who has the token and names this host; a page elsewhere that rebinds its name to the loopback does neither.

    Parameters
    ----------
    host : str
        What the server listens on.
    token : str
    """

    def __init__(self, host: str, token: str) -> None:
        self._host, self._token = host, token
        self.cookie = f"chamber_{sha256(token.encode()).hexdigest()[:12]}"

    def allows_host(self, header: str) -> bool:
        """Whether a Host header names the address we listen on; any literal address where we listen on all of them."""
        name = header.rsplit(":", 1)[0] if not header.endswith("]") else header
        name = name.strip("[]").lower()
        if name in {self._host.lower(), "localhost", "127.0.0.1", "::1"}:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._host in ("0.0.0.0", "::")

    def knows(self, token: str) -> bool:
        """Whether it is the token, in constant time."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode())

    def middleware(self, app: Any) -> Any:
        """The guard around an ASGI application."""
        from starlette.datastructures import MutableHeaders
        from starlette.requests import Request

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                if scope["type"] == "lifespan":
                    await app(scope, receive, send)
                return
            request = Request(scope)
            given = request.query_params.get("token", "")
            is_known = self.knows(given) or self.knows(request.cookies.get(self.cookie, ""))

            async def sent(message: Any) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    for name, value in HEADERS.items():
                        headers.setdefault(name, value)
                    if given and is_known:
                        headers.append("set-cookie", f"{self.cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/")
                await send(message)

            hosts = request.headers.getlist("host")
            if len(hosts) != 1 or not self.allows_host(hosts[0]):
                await _plain(421, "This name is not served here; use the URL that was printed.")(scope, receive, sent)
            elif not is_known:
                await _plain(401, "A token is needed: use the URL that was printed.")(scope, receive, sent)
            else:
                await app(scope, receive, sent)

        return guarded


HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def _policy(nonce: str) -> str:
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def _page(nonce: str) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("cloudchamber.evolve", "templates"), autoescape=True, trim_blocks=True)
    return environment.get_template("dashboard.html.j2").render(nonce=nonce)


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(json.dumps(value), status, media_type="application/json")


def _plain(status: int, text: str) -> Response:
    from starlette.responses import Response

    return Response(text, status, media_type="text/plain")


def visible(text: str) -> str:
    r"""Untrusted text with control characters, escapes and marks that change the direction of writing spelled out.

    Examples
    --------
    >>> visible("red \x1b[31m")
    'red \\x1b[31m'
    """
    return _HIDDEN.sub(lambda found: ascii(found.group())[1:-1], text)


class View:
    """What the page knows of a run, read from its store and made of plain values.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    InputError
        If there is no run.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._store = Store(path, is_reader=True)
        self._lock = threading.Lock()
        self._has_bound: bool | None = None
        settings_of(self._store)

    def changes(self, settled: int, event: int) -> dict[str, Any]:
        """Candidates after ``settled`` (up to which nothing can change any more), lines of the log after ``event``, and the run itself."""
        with self._lock:
            return dict(_finite(self._changes(settled, event)))

    def _changes(self, settled: int, event: int) -> dict[str, Any]:
        store = self._store
        events = store.events(event, 1 << 40)
        last = events[-1][0] if events else event
        candidates = store.candidates("number > ?", (settled,))
        for each in candidates:  # those that are being evaluated may still change
            if each.status == "told":
                break
            settled = each.number
        settings, spent = settings_of(store), store.spent()
        return {
            "settled": settled,
            "event": last,
            "now_s": time.time(),
            "candidates": [_row(each) for each in candidates],
            "events": [{"id": each[0], "at_s": each[1], "kind": visible(each[2]), "text": visible(each[3])} for each in events[-EVENTS:]],
            "run": {
                "path": self._path.name,
                "study": visible(str(settings["study"])),
                "seed_is_hidden": True,
                "proposers": list(settings.get("proposers", ())),
                "archive": settings.get("archive"),
                "trials": list(settings.get("trials", ())),
                "jail": settings.get("jail"),
                "is_running": is_running(self._path),
                "has_bound": self._bounded(),
                "evaluations": store.evaluations(),
                "tokens": spent.tokens,
                "usd": spent.usd,
                "wall_s": store["wall_s"],
                "budget": store["budget"],
                "best": store["best"],
                "verdict": _shown(store["verdict"]),
                "verdicts": store["verdicts"],
                **_study(str(settings["study"])),
            },
        }

    def candidate(self, number: int) -> dict[str, Any] | None:
        """One candidate whole, with what it changed in its main parent."""
        if not 0 < number < 1 << 62:
            return None
        with self._lock:
            found = self._store.candidate(number)
            parent = self._store.candidate(found.parents[0]) if found is not None and found.parents else None
            trials = Counter(trial.split for trial in self._store.trials(number))
        if found is None:
            return None
        row = _row(found)
        row |= {
            "reason": visible(found.reason),
            "feedback": visible(found.feedback),
            "diff": diff(parent.source, found.source) if parent is not None else None,
            "source": visible(found.source),
            "parent": parent.number if parent is not None else None,
            "trials": trials,
        }
        return _finite(row)  # type: ignore[no-any-return]

    def _bounded(self) -> bool | None:
        """Whether quality is measured against a bound (then 1 is the bound) or against the starting policy (then 1 is that)."""
        if self._has_bound is None:
            trials = self._store.trials(1, "training")
            self._has_bound = all(trial.bound is not None and trial.bound > 0 for trial in trials) if trials else None
        return self._has_bound


def _shown(value: Any) -> Any:
    """Text in plain containers made visible."""
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return visible(value) if isinstance(value, str) else value


def _row(each: Scored) -> dict[str, Any]:
    return {
        "number": each.number,
        "parents": list(each.parents),
        "proposer": visible(each.proposer),
        "note": visible(each.note),
        "status": each.status,
        "stage": each.stage,
        "score": each.score,
        "scores": {visible(name): value for name, value in each.scores.items()},
        "objective": each.objective,
        "validation": each.validation,
        "reason": visible(each.reason)[:300],
    }


def _study(name: str) -> Mapping[str, Any]:
    """Title and objective of a registered study; nothing for others."""
    from cloudchamber.core.errors import ChamberError
    from cloudchamber.core.registry import load_study

    try:
        study = load_study(name)
    except ChamberError:
        return {"title": name, "objective": "", "unit": "", "is_maximised": None}
    metric = study.objective
    return {"title": study.title, "objective": metric.name, "unit": metric.unit, "is_maximised": metric.direction == "max"}


def diff(before: str, after: str) -> list[list[Any]]:
    """Unified difference as (sign, old line, new line, text); whole files where they are too long to compare."""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > DIFF_LINES:
        return [["@", None, None, f"{len(old)} and {len(new)} lines: too long to compare"]]
    found: list[list[Any]] = []
    groups = difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(3)
    for group in groups:
        found.append(["@", None, None, f"lines {group[0][3] + 1} to {group[-1][4]}"])
        for kind, a, b, c, d in group:
            if kind == "equal":
                found += [[" ", a + i + 1, c + i + 1, visible(line)] for i, line in enumerate(old[a:b])]
                continue
            found += [["-", a + i + 1, None, visible(line)] for i, line in enumerate(old[a:b])]
            found += [["+", None, c + i + 1, visible(line)] for i, line in enumerate(new[c:d])]
    return found


def is_running(path: Path) -> bool:
    """Whether a process holds the run's lock; told from the kernel's list, so that nothing is touched."""
    try:
        inode = path.with_name(path.name + ".lock").stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return False
    return any(
        line.split()[1] == "FLOCK" and line.split()[-3].endswith(f":{inode}") for line in locks.splitlines() if len(line.split()) > 6
    )


def _finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON does not have, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
