# expect: harmless
"""Talks to the kernel about its network."""
import os

from tests.jail.play import Guess


def attack():
    import socket
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    return "open"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
