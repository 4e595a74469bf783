# expect: harmless
"""Follows its own symbolic link out."""
import os

from tests.jail.play import Guess


def attack():
    os.symlink(CANARY["secret_file"], "/tmp/link")
    return open("/tmp/link").read()


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
