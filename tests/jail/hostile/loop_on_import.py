# expect: timeout
"""Never finishes its import."""
import os

from tests.jail.play import Guess

while True:
    pass


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        return Guess(1.0)
