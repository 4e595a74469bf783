# expect: harmless
"""Loads a program into the kernel."""
import os

from tests.jail.play import Guess


def attack():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(321, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "bpf")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
