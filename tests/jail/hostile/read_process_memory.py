# expect: harmless
"""Reads the memory of another process."""
import os

from tests.jail.play import Guess


def attack():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(8)
    if libc.process_vm_readv(CANARY["parent"], buffer, 1, buffer, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
