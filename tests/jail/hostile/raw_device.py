# expect: harmless
"""Makes a device node of a disk."""
import os

from tests.jail.play import Guess


def attack():
    os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))
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
