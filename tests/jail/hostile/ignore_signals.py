# expect: timeout
"""Ignores every signal and loops."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import signal
        for each in range(1, 32):
            if each not in (9, 19):
                signal.signal(each, signal.SIG_IGN)
        while True:
            pass
