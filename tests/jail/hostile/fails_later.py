# expect: crash
"""Is honest once and fails then."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        if clue.step:
            raise RuntimeError("now")
        return Guess(1.0)
