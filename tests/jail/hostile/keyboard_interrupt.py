# expect: crash
"""Raises what the world may take for the user's wish to stop."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        raise KeyboardInterrupt
