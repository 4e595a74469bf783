# expect: harmless
"""Leaves through /proc/PID/root."""
import os

from tests.jail.play import Guess


def attack():
    return os.listdir("/proc/1/root/tmp")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
