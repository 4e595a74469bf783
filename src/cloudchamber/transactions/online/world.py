"""One run of a store: its stream of transactions, what is predicted of them, who is admitted, and what became of them.

It owns no clock and never sleeps: :mod:`.simulator` drives it with events, :mod:`.runtime` with threads.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cloudchamber.core.errors import CandidateError
from cloudchamber.transactions.generators import zipf

from .model import KeyState, OnlineSpec, TxnView
from .store import MVStore, Protocol, Transaction

Access = tuple[int, bool]  # key, is it written
Step = Literal["ok", "wait", "abort", "done"]
MAX_ATTEMPTS = 1000


@dataclass(frozen=True)
class Call:
    """A stored procedure called with an argument: what it will touch is known to nobody but the store."""

    number: int
    kind: int
    argument: int
    accesses: tuple[Access, ...]


def stream(n: int, *, ops: int, keys: int, theta: float, write_share: float, surprise: float, rng: np.random.Generator) -> list[Call]:
    """Return ``n`` calls of 4 kinds with 50 arguments each.

    A call touches what its kind and argument always touch, but each key is another one with probability ``surprise``.
    """
    weights = zipf(keys, theta)

    def draw() -> list[int]:
        return rng.choice(keys, min(ops, keys), replace=False, p=weights).tolist()  # type: ignore[no-any-return]

    usual = {(kind, argument): [(key, bool(rng.random() < write_share)) for key in draw()] for kind in range(4) for argument in range(50)}
    calls = []
    for number in range(n):
        kind, argument = int(rng.integers(4)), int(rng.integers(50))
        others = draw()
        touched: dict[int, bool] = {}
        for (key, writes), other in zip(usual[kind, argument], others, strict=True):
            touched.setdefault(other if rng.random() < surprise else key, writes)
        calls.append(Call(number, kind, argument, tuple(touched.items())))
    return calls


class HotKeyPredictor:
    """Learns from finished transactions which hot keys a kind and argument touch; cold keys are not worth waiting for.

    Parameters
    ----------
    hot : float
        Share of all transactions that must touch a key for it to be hot.
    """

    def __init__(self, hot: float = 0.02) -> None:
        self.hot = hot
        self._total = 0
        self._by_key: Counter[int] = Counter()
        self._by_call: dict[tuple[int, int], tuple[Counter[Access], list[int]]] = {}

    def learn(self, call: Call) -> None:
        """Count a finished transaction."""
        self._total += 1
        self._by_key.update(key for key, _ in call.accesses)
        counts, times = self._by_call.setdefault((call.kind, call.argument), (Counter(), [0]))
        counts.update(call.accesses)
        times[0] += 1

    def predict(self, call: Call) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the hot keys it will probably read, and those it will probably write."""
        counts, times = self._by_call.get((call.kind, call.argument), (Counter(), [0]))
        likely = sorted(
            each for each, count in counts.items() if 2 * count > times[0] and self._by_key[each[0]] >= max(3, self.hot * self._total)
        )
        return tuple(key for key, writes in likely if not writes), tuple(key for key, writes in likely if writes)


@dataclass(eq=False)
class Running:
    """A transaction in a worker's hands."""

    call: Call
    txn: Transaction
    ends_s: float
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    at: int = 0
    is_patient: bool = True


@dataclass
class Tally:
    """What a run came to, in counts and seconds."""

    committed: int = 0
    aborts: int = 0
    forced: int = 0
    timeouts: int = 0
    latency_s: list[float] = field(default_factory=list)


class World:
    """Everything of a run but its clock.

    Parameters
    ----------
    calls : list of Call
    spec : OnlineSpec
    protocol : str
    store : MVStore or None
    """

    def __init__(self, calls: list[Call], spec: OnlineSpec, protocol: Protocol, store: MVStore | None = None) -> None:
        self.spec = spec
        self.store = store or MVStore(protocol)
        self.tally = Tally()
        self.running: dict[int, Running] = {}
        self._to_come = list(reversed(calls))
        self._waiting: dict[int, tuple[Call, float, int]] = {}  # arrival and attempts
        self._queue: list[int] = []
        self._has_news = True  # whether anything ended since the policy held everything back
        self._stamp = 0
        self._arrived: dict[int, tuple[float, int]] = {}
        self._rng = np.random.default_rng(0)
        self._predictor = HotKeyPredictor()
        self._views: dict[int, TxnView] = {}  # what is foretold of a transaction when it is first shown

    @property
    def may_admit(self) -> bool:
        """Whether another free worker might be given something now."""
        return bool(self._queue or (self._waiting and self._has_news))

    @property
    def is_finished(self) -> bool:
        """Whether every transaction was committed."""
        return not (self._to_come or self._waiting or self.running)

    def next(self, policy: Any, now_s: float) -> Running | None:
        """Return the transaction a free worker shall run, or None if it shall stay idle until another has ended.

        Raises
        ------
        CandidateError
            If the policy names what does not wait, or names one twice.
        """
        while self._to_come and len(self._waiting) < self.spec.window:
            call = self._to_come.pop()
            self._waiting[call.number] = (call, now_s, 0)
        if not self._queue and self._waiting and self._has_news:
            self._queue = self._admitted(policy, now_s)
        if not self._queue:
            self._has_news = False
            return None
        call, arrived_s, attempts = self._waiting.pop(self._queue.pop(0))
        view = self._views.pop(call.number)
        self._stamp += 1
        # wait-die must know the oldest again after an abort
        stamp = call.number + 1 if self.store.protocol == "2pl" else self._stamp
        txn = self.store.begin(call.number, stamp, view.writes)
        made = Running(call, txn, now_s + self.spec.service_s * len(call.accesses), view.reads, view.writes)
        self.running[call.number] = made
        self._arrived[call.number] = (arrived_s, attempts)
        return made

    def _admitted(self, policy: Any, now_s: float) -> list[int]:
        for number, (call, arrived_s, attempts) in self._waiting.items():
            if number not in self._views:
                self._views[number] = TxnView(number, call.kind, call.argument, arrived_s, attempts, *self._predictor.predict(call))
        window = tuple([self._views[number] for number in self._waiting])
        answer = policy.admit(window, self._state(now_s))
        if type(answer) not in (tuple, list) or any(type(each) is not int for each in answer):
            raise CandidateError(f"admit must return a tuple of whole numbers, got {answer!r:.60}.")
        wrong = [each for each in answer if each not in self._waiting]
        if wrong or len(set(answer)) < len(answer):
            raise CandidateError(
                f"admit must name transactions of the window, each once; {(wrong or list(answer))[0]} is not, or named twice."
            )
        if not answer and not self.running:
            self.tally.forced += 1  # nothing runs and nothing would ever end: the oldest goes in
            return [window[0].number]
        return list(answer)

    def _state(self, now_s: float) -> KeyState:
        written: dict[int, float] = {}
        read: dict[int, float] = {}
        for each in self.running.values():
            for touched, until in ((each.writes, written), (each.reads, read)):
                for key in touched:
                    until[key] = max(until.get(key, -np.inf), each.ends_s, now_s)
        keys = sorted({*written, *read})
        written_until_s, read_until_s = (np.array([of.get(key, -np.inf) for key in keys]) for of in (written, read))
        free = self.spec.workers - len(self.running)
        return KeyState(now_s, free, np.array(keys, dtype=np.int64), written_until_s, read_until_s)

    def step(self, run: Running) -> Step:
        """Try the next access of a transaction, or its commit."""
        if run.at == len(run.call.accesses):
            return "done" if self.store.commit(run.txn) == "ok" else "abort"
        key, writes = run.call.accesses[run.at]
        answer = self.store.write(run.txn, key, run.call.number) if writes else self.store.read(run.txn, key, patient=run.is_patient)
        run.at += answer == "ok"
        return answer

    def end(self, run: Running, now_s: float) -> None:
        """Count a committed transaction and learn from it."""
        del self.running[run.call.number]
        arrived_s, _ = self._arrived.pop(run.call.number)
        self._has_news = True
        self.tally.committed += 1
        self.tally.latency_s.append(now_s - arrived_s)
        self._predictor.learn(run.call)

    def roll_back(self, run: Running) -> float:
        """Take back an aborted transaction's work, and return the seconds its worker spends on that and on waiting.

        The wait is drawn, and longer the more often it was aborted: two that abort each other would else meet again for ever.

        Raises
        ------
        CandidateError
            If it was aborted too often.
        """
        attempts = self._arrived[run.call.number][1] + 1
        self.store.abort(run.txn)
        self.tally.aborts += 1
        if attempts >= MAX_ATTEMPTS:
            raise CandidateError(f"transaction {run.call.number} was aborted {MAX_ATTEMPTS} times.")
        longest: int = 2 ** min(attempts - 1, 5)
        return self.spec.service_s * (1 + float(self._rng.random()) * longest)

    def retry(self, run: Running) -> None:
        """Put an aborted transaction back among those that wait, last."""
        del self.running[run.call.number]
        arrived_s, attempts = self._arrived.pop(run.call.number)
        self._waiting[run.call.number] = (run.call, arrived_s, attempts + 1)
        self._has_news = True


def patience_s(world: World) -> float:
    """How long a transaction waits for what was only foretold: long against any queue, short against for ever."""
    return 0.1 + 500 * world.spec.service_s
