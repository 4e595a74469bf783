# expect: harmless
"""Sets the clock."""
import os

from tests.jail.play import Guess


def attack():
    import time
    time.clock_settime(time.CLOCK_REALTIME, 0)
    return "set"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
