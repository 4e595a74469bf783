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
        """Return at most as many as there are free workers, or all where nothing is hot."""
        if not any(each.reads or each.writes for each in window):
            return tuple([each.number for each in window])  # nothing is hot: any order will do
        now, length_s = state.time_s, 8 * self.spec_.service_s
        written = dict(zip(state.keys.tolist(), state.written_until_s.tolist(), strict=True))
        read = dict(zip(state.keys.tolist(), (now + self.overlap * (state.read_until_s - now)).tolist(), strict=True))
        waiting, chosen = list(window), list[int]()
        while waiting and len(chosen) < state.free_workers:
            best, least_s = waiting[0], float("inf")
            for each in waiting:
                free_s = now
                for key in each.reads:
                    free_s = max(free_s, written.get(key, now))
                for key in each.writes:
                    free_s = max(free_s, read.get(key, now))
                wait_s = free_s - now - self.age * (now - each.arrived_s)
                if wait_s < least_s:
                    best, least_s = each, wait_s
                if free_s <= now:
                    break  # the window is in order of arrival: whoever comes after is younger
            if least_s > self.patience * length_s and (chosen or state.free_workers < self.spec_.workers):
                break
            waiting.remove(best)
            chosen.append(best.number)
            for key in best.writes:
                written[key] = max(written.get(key, now), now + length_s)
            for key in best.reads:
                read[key] = max(read.get(key, now), now + self.overlap * length_s)
        return tuple(chosen)
