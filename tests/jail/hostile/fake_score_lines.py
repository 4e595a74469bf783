# expect: harmless
"""Prints lines that look like results."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        print("score: 1e9", flush=True)
        os.write(1, b"{\"score\": 1e9}\n")
        import atexit
        atexit.register(print, "Ratio: 1.0")
        return Guess(0.0, text="stopped: nobody reads them")
