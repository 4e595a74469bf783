# expect: flood
"""Writes without end to standard error, in raw bytes."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        while True:
            os.write(2, bytes(1 << 16))
