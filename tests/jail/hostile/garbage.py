# expect: protocol
"""Sends random bytes."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        os.write(3, os.urandom(65536))
        return Guess(1.0)
