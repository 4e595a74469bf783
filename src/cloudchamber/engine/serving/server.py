"""The engine over HTTP, as OpenAI's clients speak it."""

from __future__ import annotations

import asyncio
import hmac
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from cloudchamber.core.errors import InputError, MissingExtra

from . import openai
from .aio import Answer, AsyncEngine, Delta, EngineClosed, RequestFailed, joined

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 500: "server_error", 503: "server_error"}


class Refused(Exception):
    """A call that is answered with an error."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class ServerOptions:
    """What a server allows.

    Parameters
    ----------
    api_key : str or None
        Needed on every call but /health, as ``Authorization: Bearer …``.
    prefill_only : bool
        Whether ``max_tokens`` must be 1.
    body_bytes : int
        Most bytes of a request's body.
    hosts : tuple of str or None
        Names under which the server may be called, so that no web page rebinds its own to the loopback; None: any.
    """

    api_key: str | None = None
    prefill_only: bool = False
    body_bytes: int = 8 << 20
    hosts: tuple[str, ...] | None = LOOPBACK


def app_of(engine: AsyncEngine, options: ServerOptions = ServerOptions()) -> Starlette:
    """The web application around an engine."""
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route
    except ImportError:
        raise MissingExtra("serving needs starlette and uvicorn", "engine") from None
    llm = engine.llm
    most = 1 if options.prefill_only else None

    def route(path: str, handler: Callable[[Request], Awaitable[Any]], method: str, *, is_open: bool = False) -> Route:
        async def guarded(request: Request) -> Any:
            try:
                _admit(request, options, is_open)
                return await handler(request)
            except Refused as error:
                return _error(error.status, str(error), error.code)
            except InputError as error:
                return _error(400, str(error))
            except EngineClosed as error:
                return _error(503, str(error))
            except RequestFailed as error:
                return _error(500, str(error))

        return Route(path, guarded, methods=[method])

    async def models(request: Request) -> Response:
        longest = llm.core.max_scored_len if options.prefill_only else llm.core.max_model_len
        entry = {"id": llm.name, "object": "model", "created": 0, "owned_by": "cloudchamber", "max_model_len": longest}
        return _json({"object": "list", "data": [entry]})

    async def completions(request: Request) -> Any:
        body = openai.read(await _body(request, options), openai.CompletionBody)
        _known(body.model)
        return await answered(request, await asyncio.to_thread(openai.completion, body, llm, most))

    async def chat(request: Request) -> Any:
        body = openai.read(await _body(request, options), openai.ChatBody)
        _known(body.model)
        return await answered(request, await asyncio.to_thread(openai.chat, body, llm, most))

    async def score(request: Request) -> Response:
        body = openai.read(await _body(request, options), openai.ScoreBody)
        _known(body.model)
        call = await asyncio.to_thread(openai.score, body, llm)
        async with _asked(engine, call) as answers:
            deltas = await _unless_gone(request.receive, _whole(answers))
            return _json(openai.scores(call, body, deltas, [each.request for each in answers], llm))

    def _known(model: str) -> None:
        if model not in ("", llm.name):
            raise Refused(404, f"no model named {model!r} here; this server has {llm.name!r}.", "model_not_found")

    async def answered(request: Request, call: openai.Call) -> Any:
        writer = openai.Writer(call, llm)
        if call.is_streamed:
            return Events(call, writer, await _submitted(engine, call))
        async with _asked(engine, call) as answers:
            deltas = await _unless_gone(request.receive, _whole(answers))
            requests = [each.request for each in answers]
            if call.params.logprobs is None:
                return _json(writer.whole(deltas, requests))
            return await asyncio.to_thread(lambda: _json(writer.whole(deltas, requests)))  # much to write: others go on meanwhile

    async def health(request: Request) -> Response:
        engine.check_open()
        return _json({"status": "ok"})

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(engine.metrics.text(engine.view, engine.in_flight), media_type="text/plain; version=0.0.4")

    async def lost(request: Request, error: Any) -> Response:
        return _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}")

    async def broken(request: Request, error: Exception) -> Response:
        return _error(500, f"{type(error).__name__}: a fault of the server; its log has more.")

    return Starlette(
        routes=[
            route("/v1/models", models, "GET"),
            route("/v1/completions", completions, "POST"),
            route("/v1/chat/completions", chat, "POST"),
            route("/v1/score", score, "POST"),
            route("/health", health, "GET", is_open=True),
            route("/metrics", metrics, "GET"),
        ],
        exception_handlers={HTTPException: lost, Exception: broken},
    )


def _admit(request: Request, options: ServerOptions, is_open: bool) -> None:
    """Refuse strangers: a wrong name, no key, or a web page that sends what browsers let any page send."""
    host = request.headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if options.hosts is not None and name.lower() not in options.hosts:
        raise Refused(421, f"this server is not called {name!r}; it is {', '.join(options.hosts)}.")
    if request.method == "POST" and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the body must be JSON, and say so: content-type: application/json.")
    given = request.headers.get("authorization", "")
    if options.api_key is not None and not is_open and not hmac.compare_digest(given.encode(), f"Bearer {options.api_key}".encode()):
        raise Refused(401, "a key is needed: authorization: Bearer KEY, with the key that the server was started with.", "invalid_api_key")


async def _body(request: Request, options: ServerOptions) -> bytes:
    from starlette.requests import ClientDisconnect

    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > options.body_bytes:
                raise Refused(413, f"the body is larger than {options.body_bytes} bytes; send several requests.")
    except ClientDisconnect:
        raise Refused(499, "the client went away.") from None
    return bytes(data)


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _error(status: int, message: str, code: str | None = None) -> Response:
    response = _json(_fault(status, message, code), status)
    if status == 503:
        response.headers["retry-after"] = "5"
    return response


def _fault(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": TYPES.get(status, "invalid_request_error"), "param": None, "code": code}}


async def _submitted(engine: AsyncEngine, call: openai.Call) -> list[Answer]:
    """Answers to a call, all or none."""
    answers: list[Answer] = []
    try:
        for prompt, params in call.asked():
            answers.append(await engine.submit(prompt, params, **call.extras))
    except BaseException:
        _give_up(answers)
        raise
    return answers


@asynccontextmanager
async def _asked(engine: AsyncEngine, call: openai.Call) -> AsyncIterator[list[Answer]]:
    """Answers to a call, given up where they are not awaited to the end."""
    answers = await _submitted(engine, call)
    try:
        yield answers
    finally:
        _give_up(answers)


def _give_up(answers: list[Answer]) -> None:
    for each in answers:
        each.cancel()


async def _whole(answers: list[Answer]) -> list[Delta]:
    return [joined([delta async for delta in each]) for each in answers]


async def _unless_gone(receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, Any]) -> Any:
    """Await work; cancel it as soon as the client goes away."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Refused(499, "the client went away.")
    finally:
        task.cancel()
        watch.cancel()


class Events:
    """A response of server-sent events: answers as they come, mixed, each event one of them."""

    def __init__(self, call: openai.Call, writer: openai.Writer, answers: list[Answer]) -> None:
        self._call, self._writer, self._answers = call, writer, answers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send them; the client may go away at any time."""
        try:
            await _unless_gone(receive, self._send(send))
        except (Refused, OSError):
            pass  # nobody is there to be told
        finally:
            _give_up(self._answers)

    async def _send(self, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._events()) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _events(self) -> AsyncGenerator[bytes, None]:
        encode = msgspec.json.encode
        news: asyncio.Queue[tuple[int, Delta | RequestFailed]] = asyncio.Queue()

        async def listen(i: int, answer: Answer) -> None:
            try:
                async for delta in answer:
                    news.put_nowait((i, delta))
            except RequestFailed as error:
                news.put_nowait((i, error))

        listeners = [asyncio.ensure_future(listen(i, answer)) for i, answer in enumerate(self._answers)]
        try:
            left = len(listeners)
            while left:
                i, delta = await news.get()
                if isinstance(delta, RequestFailed):
                    yield encode(_fault(500, str(delta)))
                    return
                left -= delta.finish is not None
                if delta.text or delta.finish is not None or delta.logprobs:
                    yield encode(self._writer.piece(i, delta))
            if self._call.with_usage:
                yield encode(self._writer.last([each.request for each in self._answers]))
            yield b"[DONE]"
        finally:
            for each in listeners:
                each.cancel()


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on.

    Raises
    ------
    InputError
        If the address cannot be had.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}; give another --port, 0 for any that is free.") from None


def serve(
    engine: AsyncEngine, listener: socket.socket, options: ServerOptions = ServerOptions(), *, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until SIGTERM or SIGINT; then refuse new requests, finish the accepted ones, and return. A second signal ends at once.

    Parameters
    ----------
    engine : AsyncEngine
    listener : socket
    options : ServerOptions
    tell : callable (str) -> None, optional
        Is told that the server is stopping, and that it has.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("serving needs starlette and uvicorn", "engine") from None

    class Server(uvicorn.Server):
        is_draining = False

        def handle_exit(self, sig: int, frame: Any) -> None:
            if self.is_draining:
                engine.broken = "it was stopped"
                super().handle_exit(sig, frame)
                return
            self.is_draining = True
            threading.Thread(target=self._drain, daemon=True).start()  # a signal may come while a lock is held

        def _drain(self) -> None:
            tell(f"stopping: no new requests are taken, {engine.in_flight} in flight will be finished; a second signal stops at once.")
            engine.close()
            self.should_exit = True

    config = uvicorn.Config(app_of(engine, options), log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=5)
    Server(config).run(sockets=[listener])
    tell("stopped.")
