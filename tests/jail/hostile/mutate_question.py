# expect: harmless
"""Changes what it was given."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            clue.values[:] = 99
        except ValueError:
            pass
        return Guess(float(clue.values.sum()), text="stopped: read-only")
