# expect: timeout
"""Sends half an answer and waits."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import struct, time
        os.write(3, struct.pack("<IIB", 100, 0, 0) + b"half")
        time.sleep(100)
