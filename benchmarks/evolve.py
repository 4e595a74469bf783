"""What the search itself costs, beside OpenEvolve, with an instant stub endpoint and a trivial evaluator in one run.

* store and selection alone (evaluation left out): milliseconds per step around the 100th, 1,000th and 10,000th candidate
  (bars: at most 5 ms; the 10,000th at most 1.3 times the 100th);
* whole iterations, ours with every candidate in the jail, OpenEvolve's in its own worker: milliseconds between two requests at
  the endpoint, medians around the 100th and the last iteration (bars: at most 1/2 of OpenEvolve's at 100, 1/5 at 1,000).
  OpenEvolve has its default database (five islands, population 1,000, archive 100). We switch between processes some sixty times an
  iteration and it does a few times, so a busy machine tells against us.

Run: ``.venv/bin/python benchmarks/evolve.py --openevolve ENVIRONMENT/bin/python [--iterations 1000] [--steps 10000]``. Without
``--openevolve`` only our own figures are printed. Its environment: ``uv venv X && uv pip install --python X/bin/python openevolve==0.4.0``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.evolve.toy.study import PricingStudy

from cloudchamber.core.results import Table
from cloudchamber.evolve import Budget, Proposal, Search, Settings

OURS = """
from cloudchamber.core.policy import Policy
from tests.evolve.toy.model import Item, Price

class Rate(Policy):
    def price(self, item: Item) -> Price:
        return Price({rate} * item.size)
"""
THEIRS = """
# EVOLVE-BLOCK-START
def price(size):
    return {rate} * size
# EVOLVE-BLOCK-END
"""
EVALUATOR = """
def evaluate(path):
    space = {}
    exec(open(path).read(), space)
    return {"combined_score": 1 / (1 + abs(space["price"](1.0) - 2.0))}
"""
CONFIG = """
max_iterations: {iterations}
checkpoint_interval: 1000000
log_level: WARNING
diff_based_evolution: false
llm:
  api_base: "{url}"
  api_key: "none"
  models:
    - name: "stub"
      weight: 1.0
evaluator:
  cascade_evaluation: false
  parallel_evaluations: 1
  timeout: 60
"""


def rate(number: int) -> float:
    """The rate of the n-th program: all differ, and their scores come in no order, as a model's do.

    Ever better ones would flatter OpenEvolve: each then drives the last from its cell, and the population stays at a handful.
    """
    return 0.5 + number * 7919 % 10007 / 1e4


class Stub:
    """An endpoint in a process of its own that answers at once with another program, and notes when it was asked."""

    def __init__(self, program: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=answer, args=(program, theirs), daemon=True)
        self._process.start()
        self.url = f"http://127.0.0.1:{self._line.recv()}/v1"
        self.times: list[float] = []

    def close(self) -> Stub:
        """End it, and take over its notes."""
        self._line.send("end")
        self.times = self._line.recv()
        self._process.join()
        return self

    def gap_ms(self, around: int, width: int = 40) -> float:
        """Median milliseconds between requests up to the ``around``-th."""
        times = self.times[max(0, around - width) : around + 1]
        return 1000 * statistics.median(b - a for a, b in itertools.pairwise(times))


def answer(program: str, line: Connection) -> None:
    """Serve until told to end."""
    numbers, times = itertools.count(1), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # an answer in two packets must not wait for a delayed acknowledgement

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            times.append(time.perf_counter())
            text = f"```python\n{program.format(rate=f'{rate(next(numbers)):.4f}')}\n```"
            message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
            reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "stub", "choices": [message], "usage": usage}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    line.send(server.server_port)
    line.recv()
    line.send(times)


class Instant:
    """A proposer that costs nothing."""

    name = "instant"

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def propose(self, context, rng):
        """Another rate."""
        return Proposal(OURS.format(rate=f"{rate(next(self._numbers)):.4f}"), (context.parents[0].number,), "another rate")


class Unmeasured:
    """An evaluator that scores at once, so that what is left is store and selection."""

    def __init__(self, evaluator) -> None:
        self._evaluator, self._scores = evaluator, itertools.count(1)
        self.opener = evaluator.opener

    def __getattr__(self, name):
        return getattr(self._evaluator, name)

    def evaluate(self, candidate, hints, *, is_start=False):
        """A made-up score."""
        number = next(self._scores)
        score = 0.5 + (number * 7919 % 10007) / 1e5 + number * 1e-6
        scores = {"young": score, "old": 1 - score / 2}
        made = replace(
            candidate, status="scored", stage=2, score=score, scores=scores, behaviour=(score % 1, number % 97 / 97), trace=str(number)
        )
        return made, []


def selection(steps: int) -> list[float]:
    """Milliseconds per step at the 100th, a tenth of the steps, and the last."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(start="BySize", trials=(1, 1, 2), seed=1, jail="none")
        with Search(
            PricingStudy(), settings, store=Path(folder) / "run.db", budget=Budget(steps + 1), proposers={"instant": Instant()}
        ) as search:
            search.evaluator = Unmeasured(search.evaluator)
            seconds = []
            for _ in range(steps):
                start = time.perf_counter()
                search.step()
                seconds.append(time.perf_counter() - start)
    return [1000 * statistics.median(seconds[max(0, at - 100) : at]) for at in (100, steps // 10, steps)]


def ours(iterations: int) -> Stub:
    """Whole iterations: ask the stub, jail, score, store."""
    stub = Stub(OURS)
    settings = Settings(
        start="BySize", workloads=("young",), trials=(1, 1, 2), seed=1, proposers=("rewrite",), llm={"base_url": stub.url, "model": "stub"}
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        Search(PricingStudy(), settings, store=Path(folder) / "run.db", budget=Budget(iterations)) as search,
    ):
        search.run()
    return stub.close()


def theirs(python: str, iterations: int) -> Stub:
    """OpenEvolve's iterations with the same answers."""
    stub = Stub(THEIRS)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (
            ("initial.py", THEIRS.format(rate="0.5")), ("evaluator.py", EVALUATOR),
            ("config.yaml", CONFIG.format(iterations=iterations, url=stub.url)),
        ):  # fmt: skip
            (Path(folder) / name).write_text(text)
        command = [
            str(Path(python).with_name("openevolve-run")),
            "initial.py",
            "evaluator.py",
            "--config",
            "config.yaml",
            "--iterations",
            str(iterations),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"OPENAI_API_KEY": "none"})
    if len(stub.close().times) < iterations:
        print(f"OpenEvolve asked {len(stub.times)} times: {done.stderr[-1500:]}", file=sys.stderr)
    return stub


def verdict(holds: bool) -> str:
    """In a word."""
    return "holds" if holds else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openevolve", help="interpreter of an environment that has openevolve")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    early, middle, late = selection(options.steps)
    rows = [
        ("store and selection, 100th", f"{early:.2f} ms", "", "", f"at most 5 ms: {verdict(early <= 5)}"),
        (f"store and selection, {options.steps // 10:,}th", f"{middle:.2f} ms", "", "", f"at most 5 ms: {verdict(middle <= 5)}"),
        (
            f"store and selection, {options.steps:,}th", f"{late:.2f} ms", f"{early:.2f} ms, our 100th", f"{late / early:.2f}",
            f"at most 1.3: {verdict(late <= 1.3 * early)}",
        ),
    ]  # fmt: skip
    mine = ours(options.iterations)
    other = theirs(options.openevolve, options.iterations) if options.openevolve else None
    for at, bar in ((100, 2), (options.iterations, 5)):
        what, own = f"whole iteration, jailed, {at:,}th", mine.gap_ms(at)
        if other is None:
            rows.append((what, f"{own:.1f} ms", "no peer named", "", ""))
        else:
            peer = other.gap_ms(at)
            rows.append(
                (what, f"{own:.1f} ms", f"{peer:.1f} ms, OpenEvolve", f"{own / peer:.2f}", f"at most 1/{bar}: {verdict(own <= peer / bar)}")
            )
    print(Table(("what", "ours", "against", "ratio", "bar"), tuple(rows)))


if __name__ == "__main__":
    main()
