# expect: harmless
"""Overwrites a file of the user."""
import os

from tests.jail.play import Guess


def attack():
    open(CANARY["secret_file"], "w").write("mine")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
