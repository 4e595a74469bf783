# expect: died
"""Closes the channel."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        os.close(3)
        return Guess(1.0)
