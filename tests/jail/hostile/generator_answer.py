# expect: type
"""Answers with an endless generator."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        return (i for i in iter(int, 1))
