# expect: harmless
"""Calls home."""
import os

from tests.jail.play import Guess


def attack():
    import socket
    socket.create_connection(("127.0.0.1", CANARY["port"]), 1)
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
