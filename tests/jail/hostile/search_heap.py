# expect: harmless
"""Looks for the evaluator among all objects."""
import os

from tests.jail.play import Guess


def attack():
    import gc
    names = [type(each).__name__ for each in gc.get_objects() if type(each).__name__ in ("Results", "Session", "Outcome", "SpotStudy", "Canaries")]
    if not names:
        raise LookupError("no evaluator here")
    return names


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
