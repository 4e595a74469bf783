# expect: type
"""Answers infinity."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        return Guess(float("inf"))
