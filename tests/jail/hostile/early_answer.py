# expect: protocol
"""Sends the next answer before the question."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import struct, sys
        if clue.step == 0:
            return Guess(1.0)
        os.write(3, struct.pack("<IIB", 1, 0, 0) + b"\xc0")
        return Guess(1.0)
