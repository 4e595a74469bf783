# expect: died
"""Raises an exception whose text is a bomb."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        class Bomb(Exception):
            def __str__(self):
                os._exit(0)
        raise Bomb
