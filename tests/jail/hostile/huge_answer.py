# expect: protocol
"""Answers with 64 MB."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        return Guess(1.0, text="x" * (64 << 20))
