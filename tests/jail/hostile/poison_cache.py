# expect: harmless
"""Leaves its mark in modules for the next candidate."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import numpy
        numpy.sum = None
        import builtins
        builtins.float = int
        return Guess(0.0, text="stopped: at the end of this process")
