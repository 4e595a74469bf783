# expect: type
"""Hides NaN in an array."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import numpy
        return Guess(1.0, mask=numpy.array([numpy.nan]))
