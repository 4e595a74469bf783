# expect: flood
"""Prints without end."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        while True:
            print("x" * 100000)
