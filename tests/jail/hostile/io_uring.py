# expect: harmless
"""Works around the filter by io_uring."""
import os

from tests.jail.play import Guess


def attack():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)
    if libc.syscall(425, 8, buffer) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
