# expect: timeout
"""Drips its answer, a byte at a time."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import struct, time
        os.write(3, struct.pack("<IIB", 100000, 0, 0))
        while True:
            os.write(3, b"x")
            time.sleep(0.01)
