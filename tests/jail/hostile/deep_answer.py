# expect: type
"""Answers with a list a million deep."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        body = b"\x91" * 1000000 + b"\xc0"
        import struct, sys
        frame = sys._getframe()
        while "ticket" not in frame.f_locals:
            frame = frame.f_back
        os.write(3, struct.pack("<IIB", 1000001, frame.f_locals["ticket"], 0))
        view = memoryview(body)
        while view:
            view = view[os.write(3, view):]
        os._exit(0)
