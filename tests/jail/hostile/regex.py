# expect: timeout
"""Loops in C: a regular expression."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import re
        re.match(r"(a+)+$", "a" * 40 + "b")
        return Guess(1.0)
