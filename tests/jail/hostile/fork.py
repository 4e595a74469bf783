# expect: harmless
"""Starts a process that outlives the trial."""
import os

from tests.jail.play import Guess


def attack():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
