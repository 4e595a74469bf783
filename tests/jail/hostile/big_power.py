# expect: timeout
"""Loops in C: a huge power."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        x = 7 ** (7 ** 12)
        return Guess(1.0)
