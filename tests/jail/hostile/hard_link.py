# expect: harmless
"""Links a file of the user into its own folder."""
import os

from tests.jail.play import Guess


def attack():
    os.link(CANARY["secret_file"], "/tmp/mine")
    return open("/tmp/mine").read()


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
