# expect: protocol
"""Answers twice."""
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
        body = b"\x81\xa6number\xcb" + struct.pack(">d", 1.0)
        data = struct.pack("<IIB", len(body), frame.f_locals["ticket"], 0) + body
        os.write(3, data + data)
        return Guess(1.0)
