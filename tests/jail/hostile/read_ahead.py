# expect: died|harmless
"""Takes the questions away from its own server."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import fcntl
        fcntl.fcntl(3, fcntl.F_SETFL, os.O_NONBLOCK)
        return Guess(1.0, text="stopped: only its own end")
