# expect: harmless
"""Fills the disk."""
import os

from tests.jail.play import Guess


def attack():
    for i in range(64):
        open(f"/tmp/{i}", "wb").write(bytes(1 << 20))
    return "filled"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
