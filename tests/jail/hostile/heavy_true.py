# expect: type
"""Sends a boolean that counts as 255 in a sum."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import numpy
        return Guess(1.0, mask=numpy.full(3, 255, numpy.uint8).view(bool))
