# expect: memory
"""Takes all memory, piece by piece."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        hoard = []
        while True:
            hoard.append(bytearray(1 << 20))
