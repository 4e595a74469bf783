# expect: harmless
"""Reads the parent's environment through /proc."""
import os

from tests.jail.play import Guess


def attack():
    return open(f"/proc/{CANARY['parent']}/environ").read()


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
