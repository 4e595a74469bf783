# expect: harmless
"""Looks for descriptors that were left open."""
import os

from tests.jail.play import Guess


def attack():
    found = []
    for fd in range(4, 256):
        try:
            found.append((fd, os.fstat(fd).st_mode))
        except OSError:
            pass
    if not found:
        raise OSError("none")
    return found


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
