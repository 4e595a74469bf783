# expect: died|memory|crash
"""Overflows the stack in C."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        import sys
        sys.setrecursionlimit(10**9)
        def f(*args):
            return sorted([1, 2], key=f)
        f()
