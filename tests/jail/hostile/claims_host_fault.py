# expect: crash
"""Says that the host failed, to be tried again for ever."""
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
        body = b"\x82\xa4kind\xa4host\xa7message\xa4oops"
        os.write(3, struct.pack("<IIB", len(body), frame.f_locals["ticket"], 1) + body)
        os._exit(0)
