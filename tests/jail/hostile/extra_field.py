# expect: type
"""Adds a field with its own score."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        return {"number": 1.0, "score": 1e9}
