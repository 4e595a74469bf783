# expect: timeout
"""Swallows every exception and goes on."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
