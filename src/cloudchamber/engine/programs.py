"""Agent programs that the engine knows, and the KV that is pinned for them between two turns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .model import PinView, Retain
from .request import Request
from .seams import KVManager, ProgramId

IDLE_S = 3600.0  # a program unheard of for so long is forgotten


@dataclass(slots=True)
class _Program:
    arrival: float
    seen: float
    live: int = 0


@dataclass(frozen=True, slots=True)
class _Pin:
    expiry: float
    program_arrival: float


class Programs:
    """When each program was first heard of, how many of its requests are here, and until when its KV is pinned."""

    def __init__(self, kv: KVManager) -> None:
        self._kv = kv
        self._known: dict[ProgramId, _Program] = {}
        self._pins: dict[ProgramId, _Pin] = {}
        self._many = 1024  # when so many are known, idle ones are looked for

    def arrive(self, r: Request, now: float) -> None:
        """A request came in: note when its program did."""
        r.program_arrival = r.arrival
        if r.program is None:
            return
        if len(self._known) > self._many:
            self._known = {k: p for k, p in self._known.items() if p.live or k in self._pins or now - p.seen < IDLE_S}
            self._many = max(1024, 2 * len(self._known))
        program = self._known.setdefault(r.program, _Program(r.arrival, now))
        program.seen, program.live = now, program.live + 1
        r.program_arrival = program.arrival

    def end(self, r: Request, now: float, retain: Retain) -> bool:
        """A request has ended and the manager has done as ``retain`` says. True if a pin came or went."""
        if r.program is None:
            return False
        program, had = self._known[r.program], self._pins.get(r.program)
        program.live, program.seen = program.live - 1, now
        if retain.kind == "pin":
            self._pins.pop(r.program, None)
            if self._kv.pinned_blocks(r.program):
                self._pins[r.program] = _Pin(now + retain.ttl_s, program.arrival)
        elif not program.live and (r.is_last or r.finish == "abort"):
            self.unpin(r.program)
        if r.is_last and not program.live:
            del self._known[r.program]
        return self._pins.get(r.program) is not had

    def is_pinned(self, program: ProgramId | None) -> bool:
        """Whether a program holds a pin."""
        return program in self._pins

    def unpin(self, program: ProgramId | None) -> bool:
        """Leave a program's pinned blocks to the LRU; False if it has none."""
        if program not in self._pins:
            return False
        del self._pins[program]
        self._kv.unpin(program)
        return True

    def expired(self, now: float, waiting: Iterable[Request]) -> list[ProgramId]:
        """Programs whose pin has expired, and for which no request waits."""
        if not self._pins:
            return []
        wanted = {r.program for r in waiting}
        return [name for name, p in self._pins.items() if p.expiry <= now and name not in wanted]

    def next_expiry(self, now: float) -> float:
        """When the next pin expires (s)."""
        return min((p.expiry for p in self._pins.values() if p.expiry > now), default=np.inf)

    def views(self) -> list[PinView]:
        """All pins."""
        return [PinView(name, p.program_arrival, p.expiry, self._kv.pinned_blocks(name)) for name, p in self._pins.items()]
