"""What a jailed candidate may use up."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from cloudchamber.core.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Limits of one trial; whatever passes one makes the trial void.

    Parameters
    ----------
    cpu_s : float
        Processor time of the whole trial, loading included; the kernel counts in whole seconds, so it acts rounded up.
    wall_s : float
        Wall time the world waits for its answers in a whole trial; what the world itself takes is not counted.
    call_s : float
        Wall time of one call (loading is one).
    memory : int
        Bytes of address space on top of what the interpreter and its libraries take.
    tmp : int
        Bytes of the throw-away ``/tmp``.
    output : int
        Bytes it may print.
    frame : int
        Bytes of one answer.
    """

    cpu_s: float = 60.0
    wall_s: float = 300.0
    call_s: float = 20.0
    memory: int = 1 << 30
    tmp: int = 16 << 20
    output: int = 16 << 20
    frame: int = 1 << 20

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise InputError(f"Limits.{each.name} must be a finite number above 0, got {value!r}.")
        if self.memory < 16 << 20:
            raise InputError(f"Limits.memory must be at least {16 << 20} bytes (no policy runs in less), got {self.memory}.")
