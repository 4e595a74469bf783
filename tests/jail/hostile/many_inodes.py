# expect: harmless
"""Uses up the inodes."""
import os

from tests.jail.play import Guess


def attack():
    for i in range(100000):
        open(f"/tmp/{i}", "w").close()
    return "made"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
