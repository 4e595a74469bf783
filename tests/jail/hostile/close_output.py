# expect: crash
"""Closes its standard streams, twice."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        os.close(1)
        os.close(2)
        return Guess(0.0)
