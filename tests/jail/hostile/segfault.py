# expect: died
"""Reads address 0."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import ctypes
        ctypes.string_at(0)
