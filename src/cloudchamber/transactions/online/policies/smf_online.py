"""Shortest makespan first on a stream: fill free workers with those that will wait least for what runs."""

from __future__ import annotations

from cloudchamber.core.policy import Policy, Real
from cloudchamber.transactions.online.model import KeyState, TxnView


class SMFOnline(Policy):
    """Append the transaction that could go through soonest, as long as a worker is free and it would not wait for long.

    A read waits for the writers of its key that entered before it; a write goes in late if a reader that will enter after it overtakes
    it, so it counts as waiting for readers by ``overlap``. Each second a transaction has waited takes ``age`` seconds off, so that
    none starves.

    Parameters
    ----------
    patience : float, default 0.5
        Longest wait admitted, in transaction lengths of eight accesses.
    overlap : float, default 0.5
        Share of a reader's rest that a writer waits for.
    age : float, default 0.02
        Bonus per second of waiting.
    """

    _constraints = {"patience": Real(0, 1e6), "overlap": Real(0, 1), "age": Real(0, 1e6)}

    def __init__(self, *, patience: float = 0.5, overlap: float = 0.5, age: float = 0.02) -> None:
        self.patience = patience
        self.overlap = overlap
        self.age = age

    def admit(self, window: tuple[TxnView, ...], state: KeyState) -> tuple[int, ...]:
        """Return at most as many as there are free workers."""
        now, length_s = state.time_s, 8 * self.spec_.service_s
        written = dict(zip(state.keys.tolist(), state.written_until_s.tolist(), strict=True))
        read = dict(zip(state.keys.tolist(), state.read_until_s.tolist(), strict=True))
        waiting, chosen = list(window), list[int]()
        while waiting and len(chosen) < state.free_workers:

            def wait_s(each: TxnView) -> float:
                until = [written.get(key, now) for key in each.reads]
                until += [now + self.overlap * (read.get(key, now) - now) for key in each.writes]
                return max(0.0, max(until, default=now) - now) - self.age * each.waited_s

            best = min(waiting, key=lambda each: (wait_s(each), each.number))
            if wait_s(best) > self.patience * length_s and (chosen or state.free_workers < self.spec_.workers):
                break
            waiting.remove(best)
            chosen.append(best.number)
            for keys, until_s in ((best.writes, written), (best.reads, read)):
                for key in keys:
                    until_s[key] = max(until_s.get(key, now), now + length_s)
        return tuple(chosen)
