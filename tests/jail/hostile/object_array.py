# expect: type
"""Sends an array of objects."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import numpy
        return Guess(1.0, mask=numpy.array([object()]))
