# expect: harmless
"""Leaves a file for the next candidate outside its own /tmp."""
import os

from tests.jail.play import Guess


def attack():
    open(os.path.join(os.path.dirname(CANARY["stray"]), "..", CANARY["stray"].lstrip("/").replace("tmp/", "var/tmp/", 1)), "w").write("note")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
