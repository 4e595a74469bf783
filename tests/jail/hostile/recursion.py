# expect: crash
"""Recurses without end."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        return self.guess(clue)
