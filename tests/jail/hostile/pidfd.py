# expect: harmless
"""Opens another process."""
import os

from tests.jail.play import Guess


def attack():
    return os.pidfd_open(CANARY["pid"])


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
