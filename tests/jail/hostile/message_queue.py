# expect: harmless
"""Keeps a message queue for the next candidate."""
import os

from tests.jail.play import Guess


def attack():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.msgget(1234, 0o1666) < 0:
        raise OSError(ctypes.get_errno(), "msgget")
    return "kept"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
