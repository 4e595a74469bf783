# expect: protocol
"""Answers another question."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import struct
        os.write(3, struct.pack("<IIB", 1, 12345, 0) + b"\xc0")
        return Guess(1.0)
