# expect: harmless
"""Attaches to another process."""
import os

from tests.jail.play import Guess


def attack():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, CANARY["pid"], 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
