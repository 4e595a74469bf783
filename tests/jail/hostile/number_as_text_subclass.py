# expect: type
"""Answers a float that lies about itself."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        class Liar(float):
            def __lt__(self, other):
                return True
        return Guess(Liar(1.0))
