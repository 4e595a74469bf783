# expect: harmless
"""Imports the tests it is judged by."""
import os

from tests.jail.play import Guess


def attack():
    import tests.jail.conftest as conftest
    return conftest


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
