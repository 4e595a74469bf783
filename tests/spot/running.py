"""What the tests of the real runtime share: small markets drawn by hand, jobs, and an S3 service that can be made to fail."""

from __future__ import annotations

import http.client
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.spot.clouds.localcloud import LocalCloud, Pace
from cloudchamber.spot.market import Market
from cloudchamber.spot.model import Job, SpotSpec, Zone

JOB = Path(__file__).with_name("walking_job.py")
TICK_S = 60.0


def market_of(*rows: str, usd_h: tuple[float, ...] | None = None) -> Market:
    """A market with one zone per string, in a region of its own: ``#`` is up, ``.`` is down, a tick each."""
    up = np.array([[char == "#" for char in row] for row in rows]).T
    prices = np.arange(1.0, len(rows) + 1) if usd_h is None else np.array(usd_h)
    zones = tuple(Zone(f"zone-{i}", f"region-{i}", 10.0) for i in range(len(rows)))
    return Market(zones, TICK_S, up, np.ones(up.shape) * prices, 0.1 * (1 - np.eye(len(rows))))


def spec_of(market: Market, work: int, deadline: int, cold: int = 2) -> SpotSpec:
    """A job in ticks, with a checkpoint of 5 GB."""
    return SpotSpec(Job(work * TICK_S, deadline * TICK_S, cold * TICK_S, 5.0), market.zones, market.egress_usd_gb * 5, TICK_S, 60.0)


def walking(steps: int, pause: float | Path = 0.01, *quirks: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-E", str(JOB), str(steps), str(pause), *quirks)


def cloud_of(
    market: Market,
    spec: SpotSpec,
    command: tuple[str, ...],
    folder: Path,
    *,
    tick_real_s: float = 0.02,
    endpoint_url: str | None = None,
    grace_s: float = 5.0,
    upload_every: int = 5,
) -> LocalCloud:
    pace = Pace(TICK_S / tick_real_s, upload_every_s=upload_every * TICK_S, grace_s=grace_s)
    return LocalCloud(market, spec, command, folder, pace=pace, endpoint_url=endpoint_url)


def processes_of(mark: str) -> list[int]:
    """Every process with the text in its command line or environment, this one and its ancestors apart."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in text and int(entry.name) not in (os.getpid(), os.getppid()):
            found.append(int(entry.name))
    return found


class FaultyS3:
    """A proxy before moto's server: ``fail`` refuses requests of these methods, ``delay_s`` slows those whose path has ``slow``."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.fail: tuple[str, ...] = ()
        self.slow, self.delay_s, self.delayed = "", 0.0, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

            def log_message(self, *_: object) -> None:
                pass

            def _forward(self) -> None:
                body = self._body()
                if self.command in outer.fail:
                    self._reply(503, {}, b"<Error><Code>ServiceUnavailable</Code></Error>")
                    return
                if outer.slow and (outer.slow in self.path or outer.slow in self.headers):
                    outer.delayed.set()
                    time.sleep(outer.delay_s)
                connection = http.client.HTTPConnection(*target)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                self._reply(answer.status, dict(answer.getheaders()), answer.read())
                connection.close()

            def _body(self) -> bytes:
                if "100-continue" in self.headers.get("Expect", ""):
                    del self.headers["Expect"]
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def _reply(self, status: int, headers: dict[str, Any], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@contextmanager
def faulty_s3() -> Iterator[FaultyS3]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = FaultyS3(server.get_host_and_port())
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        server.stop()
