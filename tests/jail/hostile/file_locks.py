# expect: harmless
"""Signals to another candidate by locking a shared file."""
import os

from tests.jail.play import Guess


def attack():
    import fcntl, numpy
    fcntl.lockf(open(numpy.__file__), fcntl.LOCK_SH)
    return "locked"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
