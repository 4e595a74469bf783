# expect: harmless
"""Hides data in an anonymous file."""
import os

from tests.jail.play import Guess


def attack():
    fd = os.memfd_create("x")
    return fd


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
