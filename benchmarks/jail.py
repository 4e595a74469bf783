"""Cost of the jail, side by side with what one would use instead, interleaved in one run; medians.

* setting up a jailed trial against a cold interpreter that imports the same libraries (bar: at most 1/20);
* a call against a bare socket pair that echoes the same payload as JSON between two processes (bar: at most 2 times);
* 64 calls in one frame against 64 single calls, per item (bar: at least 6 times cheaper);
* candidates that run away are ended within the limit on the trial and half a second, the slowest of three;
* whole smoke trials of every built-in policy of every study, jailed against in process (no bar: reported).

Run: ``.venv/bin/python benchmarks/jail.py [STUDY]...`` (a minute or two).
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.jail.conftest import Canaries, play
from tests.jail.play import Clue, Player

from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError
from cloudchamber.core.parallel import one_trial
from cloudchamber.core.policy import is_clairvoyant
from cloudchamber.core.registry import load_study, study_names
from cloudchamber.core.results import Table
from cloudchamber.jail import Limits
from cloudchamber.jail.files import JailedPolicy, source_of
from cloudchamber.jail.levels import NamespaceJail
from cloudchamber.jail.stage import interpreter

HONEST = """
from tests.jail.play import Guess
class Honest:
    def reset(self, rng): pass
    def guess(self, clue): return Guess(1.0, picks=(clue.step,))
"""
ROOT = Path(__file__).parents[1]
ROUNDS = 15
RUNAWAYS = (
    "fork_bomb", "stderr_flood", "loop", "regex", "big_power", "sleep", "ignore_signals", "close_channel", "empty_frame", "deep_answer",
    "memory_slowly", "print_flood", "drip",
)  # fmt: skip


def medians(*works: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each, in turns, after one round that is not counted."""
    seconds: list[list[float]] = [[] for _ in works]
    for i in range(rounds + 1):
        for work, found in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            if i:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in seconds]


def set_up() -> tuple[str, ...]:
    """A trial's jail against a cold interpreter, both with numpy and numba."""
    jail = NamespaceJail()
    site = str(Path(np.__file__).parents[1])
    cold = [str(interpreter()), "-S", "-c", f"import sys; sys.path.insert(0, {site!r}); import numpy, numba"]

    def jailed() -> None:
        with jail.load(HONEST, Player):
            pass

    ours, theirs = medians(jailed, lambda: subprocess.run(cold, check=True), rounds=7)
    return _line("jailed trial set up and ended", ours, "cold interpreter, numpy and numba", theirs, "at most 1/20", ours <= theirs / 20)


class Echo:
    """The peer: a forked process that reads JSON lines from a bare socket pair and writes an answer of the same shape."""

    def __init__(self) -> None:
        self._mine, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            self._mine.close()
            while data := theirs.recv(1 << 20):
                asked = json.loads(data)
                theirs.send(json.dumps({"number": 1.0, "until_s": 0.0, "text": "", "picks": [asked["step"]], "mask": None}).encode())
            os._exit(0)
        theirs.close()

    def ask(self, values: np.ndarray) -> object:
        """One question and its answer."""
        self._mine.send(json.dumps({"step": 1, "values": values.tolist()}).encode())
        return json.loads(self._mine.recv(1 << 20))

    def close(self) -> None:
        """End it."""
        self._mine.close()
        os.waitpid(self._pid, 0)


def calls() -> list[tuple[str, ...]]:
    """Single calls against the echo, a batch against single calls."""
    lines, echo, calls_per_round = [], Echo(), 400
    with NamespaceJail().load(HONEST, Player, limits=Limits(cpu_s=600)) as player:
        for size in (8, 512):
            values = np.arange(float(size))
            clue = Clue(1, values)
            ours, theirs = medians(
                lambda clue=clue: [player.guess(clue) for _ in range(calls_per_round)],
                lambda values=values: [echo.ask(values) for _ in range(calls_per_round)],
            )
            ours, theirs = ours / calls_per_round, theirs / calls_per_round
            lines.append(_line(f"call, {size} numbers", ours, "JSON echo on a bare socket pair", theirs, "at most 2", ours <= 2 * theirs))
        clue = Clue(1, np.arange(8.0))
        batch = [(clue,)] * 64
        many, single = medians(lambda: player.guess_many(batch), lambda: [player.guess(clue) for _ in range(64)])
        lines.append(_line("call in a frame of 64", many / 64, "single call", single / 64, "at most 1/6", many <= single / 6))
    echo.close()
    return lines


def runaways() -> list[tuple[str, ...]]:
    """Candidates of the hostile corpus that do not end, or would do much harm in a second, against the limit on the whole trial."""
    jail, limits, lines = (
        NamespaceJail(libraries=("numpy",)),
        Limits(cpu_s=10, wall_s=2.0, call_s=2.0, memory=256 << 20, output=1 << 20),
        [],
    )
    with tempfile.TemporaryDirectory() as folder:
        canaries = Canaries(Path(folder))
        for name in RUNAWAYS:
            first, _, rest = (ROOT / f"tests/jail/hostile/{name}.py").read_text().partition('"""\n')
            source, seconds, kind = f'{first}"""\n{canaries.preamble()}{rest}', [], "harmless"
            for _ in range(3):
                play(HONEST, jail=jail, limits=limits)
                start = time.perf_counter()
                try:
                    play(source, jail=jail, limits=limits)
                except CandidateError as error:
                    kind = error.kind
                seconds.append(time.perf_counter() - start)
            slowest, most = max(seconds), limits.wall_s + 0.5
            lines.append(
                (
                    f"{name}: {kind}",
                    f"{slowest:.3f} s",
                    "limit of 2 s and 0.5 s",
                    f"{most} s",
                    f"{slowest / most:.2f}",
                    f"at most 1: {_verdict(slowest <= most)}",
                )
            )
        canaries.close()
    return lines


def slow_down(name: str) -> list[tuple[str, ...]]:
    """Whole smoke trials of every built-in policy, jailed and in process."""
    study, lines = load_study(name), []
    workload = study.workloads()["smoke"]
    for label, maker in study.policies().items():
        if is_clairvoyant(ask(maker)):
            continue
        source, expression, path = source_of(maker)
        jailed = JailedPolicy(
            study, source, name=expression, path=path, level="namespace", limits=Limits(cpu_s=600, wall_s=600, call_s=300)
        )
        ours, theirs = medians(
            lambda jailed=jailed: one_trial(study, jailed, workload, 0), lambda maker=maker: one_trial(study, maker, workload, 0), rounds=5
        )
        lines.append((name, label, f"{ours * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{ours / theirs:.1f}"))
    return lines


def _line(what: str, ours: float, peer: str, theirs: float, bar: str, holds: bool) -> tuple[str, ...]:
    return (what, f"{ours * 1e6:,.0f} µs", peer, f"{theirs * 1e6:,.0f} µs", f"{ours / theirs:.3f}", f"{bar}: {_verdict(holds)}")


def _verdict(holds: bool) -> str:
    return "holds" if holds else "MISSED"


def main() -> None:
    """Print every figure with its bar."""
    rows = (set_up(), *calls(), *runaways())
    print(Table(("what", "ours", "against", "theirs", "ratio", "bar"), rows), end="\n\n")
    lines = [line for name in sys.argv[1:] or study_names() for line in slow_down(name)]
    print(Table(("study", "policy", "jailed ms", "in process ms", "slow-down"), tuple(lines)))


if __name__ == "__main__":
    main()
