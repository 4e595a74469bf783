# expect: harmless
"""Looks for the evaluator in the frames above it."""
import os

from tests.jail.play import Guess


def attack():
    import sys
    frame, names = sys._getframe(), []
    while frame is not None:
        names += [name for name in (*frame.f_globals, *frame.f_locals) if "workload" in name.lower() or "score" in name.lower() or "canar" in name.lower() and name != "CANARY"]
        frame = frame.f_back
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
