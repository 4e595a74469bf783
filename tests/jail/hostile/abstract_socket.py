# expect: harmless
"""Talks to another program by an abstract socket."""
import os

from tests.jail.play import Guess


def attack():
    import socket
    socket.socket(socket.AF_UNIX).connect("\0" + CANARY["abstract"])
    return "connected"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
