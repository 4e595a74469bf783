# expect: died
"""Leaves at once, with a code that means success."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        os._exit(0)
