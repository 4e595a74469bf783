# expect: harmless
"""Patches the messages of the game for the next candidate."""
import os

from tests.jail.play import Guess


def attack():
    import tests.jail.play as play
    open(play.__file__, "a").write("# mine")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
