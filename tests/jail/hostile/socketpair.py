# expect: harmless
"""Makes a socket pair to smuggle descriptors."""
import os

from tests.jail.play import Guess


def attack():
    import socket
    socket.socketpair()
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
