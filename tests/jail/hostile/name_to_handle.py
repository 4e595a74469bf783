# expect: harmless
"""Opens a file by its handle."""
import os

from tests.jail.play import Guess


def attack():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(303, -100, b"/", 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
