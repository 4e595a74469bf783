# expect: harmless
"""Works on between two calls."""
import os

from tests.jail.play import Guess


def attack():
    import threading
    threading.Thread(target=lambda: None).start()
    return "started"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
