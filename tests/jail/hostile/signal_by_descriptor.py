# expect: harmless
"""Has the kernel send a signal when a descriptor is ready."""
import os

from tests.jail.play import Guess


def attack():
    import fcntl
    fcntl.fcntl(3, fcntl.F_SETOWN, CANARY["pid"])
    fcntl.fcntl(3, 10, 9)
    return "asked"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
