# expect: timeout
"""Sleeps."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import time
        time.sleep(1000)
