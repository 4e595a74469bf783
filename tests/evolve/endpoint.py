"""A stub of an OpenAI-compatible endpoint on loopback: each request takes the next step of a script."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CANARY = "sk-canary-93f1c0ffee-do-not-leak"


def answer(text, *, read=100, written=50):
    """A step that answers with a completion."""
    return {
        "choices": [{"message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": read, "completion_tokens": written},
    }


class Endpoint:
    """Steps: a dict is answered as JSON, bytes as they are, an int or (int, headers) is a status; a callable gets the handler."""

    def __init__(self, *steps, forever=None):
        self.steps, self.forever, self.requests, self.keys = list(steps), forever, [], []
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with owner._lock:
                    owner.requests.append(json.loads(body))
                    owner.keys.append(self.headers.get("Authorization"))
                    step = owner.steps.pop(0) if owner.steps else owner.forever
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    owner.act(self, step)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def act(self, handler, step):
        if callable(step) and not isinstance(step, dict):
            made = step(handler)
            if made is None:
                return
            step = made
        status, headers = 200, {}
        if isinstance(step, int):
            step = (step, {})
        if isinstance(step, tuple):
            (status, headers), step = step, {"error": {"message": "no"}}
        data = step if isinstance(step, bytes) else json.dumps(step).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def trickle(seconds: float) -> Callable:
    """A step that sends a byte now and then, for a while."""

    def step(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)

    return step


def trickle_headers(seconds: float) -> Callable:
    """The same within the headers."""

    def step(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b"X-A: b\r\n")
            handler.wfile.flush()
            time.sleep(0.02)

    return step


def silence(seconds: float) -> Callable:
    """A step that says nothing."""
    return lambda handler: time.sleep(seconds)


def hang_up(handler):
    """A step that ends the connection without an answer."""
    handler.connection.close()


def half(handler):
    """A step that promises more than it sends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
