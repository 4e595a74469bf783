# expect: harmless
"""Stores a bit in the times of a shared file."""
import os

from tests.jail.play import Guess


def attack():
    import numpy
    os.utime(numpy.__file__, (1, 1))
    return "set"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
