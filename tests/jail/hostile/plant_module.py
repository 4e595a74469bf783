# expect: harmless
"""Plants a module where the zygote imports from."""
import os

from tests.jail.play import Guess


def attack():
    import sys
    open(os.path.join(sys.path[0], "numpy.py"), "w").write("")


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
