# expect: type
"""Sends an empty frame."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import struct, sys
        frame = sys._getframe()
        while "ticket" not in frame.f_locals:
            frame = frame.f_back
        os.write(3, struct.pack("<IIB", 0, frame.f_locals["ticket"], 0))
        os._exit(0)
